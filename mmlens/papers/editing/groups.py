"""Nouns with two pictures each, in groups: the samples that rewriting is asked of.

A group has nouns that are rewritten, each with two pictures and a word that it is to become, and
pictures of other things. No noun is in two groups, in no form, and within a group the nouns, the
words and the other things are different. Groups of one noun ask about one edit, longer ones about
edits one after the other. A group is a sample, so that a sweep carries it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from mmlens.datasets.sample import Sample, Samples, content_hash
from mmlens.model.targets import extend, one
from mmlens.papers.mmn.questions.explained import names_thing
from mmlens.papers.tables import ExperimentError
from mmlens.values.prompt import Prompt, SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

OTHERS = 3
"""Pictures of other things for each noun of a group."""


@dataclass(frozen=True, eq=False)
class NamedPicture:
    """A picture, and where its caption says which token of its first noun."""

    sample: Sample
    noun: str
    token: int
    before: Sequence[int]

    def soft(self, model: HookedVLM, prompt: str) -> SoftPrompt:
        """The prompt and the caption up to the noun."""
        return extend(model, one(model, Prompt(self.sample.image, prompt)), self.before)


class Planned(NamedTuple):
    """A noun that is rewritten on the first picture, a second one, and the word's token."""

    first: NamedPicture
    second: NamedPicture
    word: int


@dataclass(frozen=True, eq=False)
class Group(Sample):
    """Nouns in the place of a sample.

    Attributes:
        edits: what is rewritten, in order.
        others: pictures of other things.
        kept: pictures that are to be preserved where their nouns are said; none of the others.
    """

    edits: tuple[Planned, ...] = ()
    others: tuple[NamedPicture, ...] = field(default=(), repr=False)
    kept: tuple[NamedPicture, ...] = field(default=(), repr=False)


def grouped(
    samples: Samples, table: pd.DataFrame, *, size: int = 1, most: int = 60, pool: int = 0
) -> Samples:
    """Groups of so many nouns, in the order of the pictures.

    Args:
        table: of `named_nouns`, about these samples.
        size: nouns of a group.
        most: groups, at most.
        pool: the first so many pictures are kept, and are in no group.

    Raises:
        ExperimentError: the pictures are too few for one group.
    """
    if pool >= len(samples):
        raise ExperimentError(
            f"pool={pool} takes all {len(samples)} pictures of {samples.name}: give more pictures,"
            " or a smaller pool."
        )
    preserved = _rows(samples, table, range(pool))
    shown = _by_noun(_rows(samples, table, range(pool, len(samples))))
    tokens = list(shown)
    twice = [token for token in tokens if len(shown[token]) > 1]
    many = min(len(twice) // size, most)
    if not many or len(tokens) < 2 * size + 1:
        raise ExperimentError(
            f"A group takes {size} {'nouns' if size > 1 else 'noun'} with two pictures and"
            f" {size + 1} others; of the {len(samples) - pool} pictures asked, captions name"
            f" {len(tokens)} nouns first, {len(twice)} of them twice: give more pictures."
        )
    plans = [_plan(tokens, twice[at * size : (at + 1) * size]) for at in range(many)]
    names = [" ".join(_noun(shown, token) for token, _ in edits) for edits, _ in plans]

    def group(at: int) -> Group:
        edits, others = plans[at]
        made = []
        for token, word in edits:
            first, second = (_named(samples, row) for row in shown[token][:2])
            made.append(Planned(first, second, word))
        rest = [_named(samples, shown[token][0]) for token in others]
        some = [_named(samples, row) for row in preserved] if size > 1 else []
        return Group(names[at], None, edits=tuple(made), others=tuple(rest), kept=tuple(some))

    kept_too = [preserved] if size > 1 else []
    told = json.dumps([size, pool, plans, [shown[token][:2] for token in tokens], *kept_too])
    return Samples(f"nouns of {samples.name}", names, group, content_hash(samples.hash, told))


def _rows(samples: Samples, table: pd.DataFrame, which: range) -> list[Any]:
    """Place, noun, token and tokens before it of each of these pictures that is given a noun."""
    asked = {samples.ids[place]: place for place in which}
    answers: Any = table[(table["skipped"] == "") & table["sample"].isin(list(asked))]
    return [
        [asked[row["sample"]], str(row["noun"]), int(row["token"]), json.loads(row["before"])]
        for row in answers.to_dict("records")
    ]


def _by_noun(rows: list[Any]) -> dict[int, list[Any]]:
    """The rows by token, in one form of each noun."""
    found: dict[int, list[Any]] = {}
    for row in rows:
        _, noun, token, _ = row
        known = (_noun(found, other) for other in found if other != token)
        if not any(names_thing(noun, other) or names_thing(other, noun) for other in known):
            found.setdefault(token, []).append(row)
    return found


def _noun(shown: dict[int, list[Any]], token: int) -> str:
    return shown[token][0][1]


def _named(samples: Samples, row: Any) -> NamedPicture:
    place, noun, token, before = row
    return NamedPicture(samples[place], noun, token, before)


def _plan(tokens: list[int], here: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Each noun's token with the word's that it is to become; and the tokens of other things."""
    start, size = tokens.index(here[-1]) + 1, len(here)
    rest = [one for one in [*tokens[start:], *tokens[:start]] if one not in here]
    return list(zip(here, rest[:size], strict=True)), rest[size : (1 + OTHERS) * size]
