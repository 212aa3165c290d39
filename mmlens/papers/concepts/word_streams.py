"""Which pictures a study of concepts is about, and what the streams of two models hold in them.

The nouns are the most frequent first nouns of the captions, or those that are named. Of each noun
every other picture makes the dictionaries and shifts (`pool`); the rest are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlens.papers.tables import ExperimentError, used

LEAST = 4
"""Pictures that a noun must have."""


@dataclass(frozen=True, eq=False)
class WordStreams:
    """Pictures, one a row, by their first noun.

    Attributes:
        ids: of the samples. nouns, tokens: what is said first. ids_before: that lead to it.
        things: names of what is in the picture.
        before: Float[row, dim], of the model; after: of the changed one, or None.
        pool: Bool[row], whether the picture makes dictionaries.
    """

    ids: list[str] = field(repr=False)
    nouns: list[str] = field(repr=False)
    tokens: list[int] = field(repr=False)
    ids_before: list[list[int]] = field(repr=False)
    things: list[list[str]] = field(repr=False)
    pool: Bool[Tensor, " row"] = field(repr=False)
    before: Float[Tensor, "row dim"] = field(default_factory=lambda: torch.zeros(0, 0), repr=False)
    after: Float[Tensor, "row dim"] | None = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        """The nouns, the most frequent first."""
        return [noun for noun, _ in Counter(self.nouns).most_common()]

    def token_of(self, noun: str) -> int:
        """The token by which a noun mostly begins."""
        of = (token for one, token in zip(self.nouns, self.tokens, strict=True) if one == noun)
        return Counter(of).most_common(1)[0][0]

    @property
    def said(self) -> dict[str, list[int]]:
        """By the sample's id, the tokens up to the noun, and its own."""
        rows = zip(self.ids, self.ids_before, self.tokens, strict=True)
        return {one: [*ids, token] for one, ids, token in rows}


def chosen(table: pd.DataFrame, nouns: int | Sequence[str]) -> WordStreams:
    """The pictures of the most frequent nouns, or of these.

    Args:
        table: of `nouns_said`.

    Raises:
        ExperimentError: fewer than two nouns have `LEAST` pictures.
    """
    rows: Any = used(table, "noun", "token", "ids", "things")
    sizes = Counter(rows["noun"])
    often = [noun for noun, size in sizes.most_common() if size >= LEAST]
    if isinstance(nouns, int):
        own = often[:nouns]
    else:
        own = [noun for noun in (one.strip().lower() for one in nouns) if noun in often]
    if len(own) < 2:
        first = ", ".join(f"{noun} ({size})" for noun, size in sizes.most_common(5))
        raise ExperimentError(
            f"Concepts are compared between at least two nouns with {LEAST} pictures each, and the"
            f" captions name first: {first}. Give more pictures, or other nouns."
        )
    here = rows[rows["noun"].isin(own)]
    place = here.groupby("noun").cumcount()
    return WordStreams(
        ids=list(here["sample"]), nouns=list(here["noun"]),
        tokens=here["token"].astype(int).tolist(),
        ids_before=[[int(one) for one in row] for row in here["ids"]],
        things=[[str(one) for one in row] for row in here["things"]],
        pool=torch.tensor((place % 2 == 0).tolist()),
    )  # fmt: skip


def renamings(streams: WordStreams) -> dict[str, str]:
    """Which noun is called by which other: of the nouns by frequency, every first as the next."""
    names = streams.names
    return dict(zip(names[0::2], names[1::2], strict=False))
