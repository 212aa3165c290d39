"""The strongest neurons of every token as a table, with the sign of their activations.

A neuron whose activation is negative writes minus its output row, so it decodes to the words of
that direction (`mmlens.methods.decode`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.decode import decode, sign_of
from mmlens.methods.translators import Translators
from mmlens.model.targets import Target
from mmlens.values.labels import Marker, Neuron, Patch
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


class Strongest:
    """The k neurons of largest score so far, each at its best patch."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.found: list[tuple[float, int, int, int]] = []

    def add(self, layer: int, product: torch.Tensor) -> None:
        """Add a layer's product Float[patch, unit]."""
        values, patch = product.max(0)
        top = values.topk(min(self.k, len(values)))
        units = top.indices.tolist()
        new = zip(top.values.tolist(), patch[top.indices].tolist(), units, strict=True)
        self.found += [(value, layer, unit, place) for value, place, unit in new]
        self.found = sorted(self.found, key=lambda row: -row[0])[: self.k]

    def rows(self) -> list[tuple[float, Neuron, int]]:
        """(score, neuron, index of the patch), the largest first."""
        return [(value, Neuron(layer, unit), place) for value, layer, unit, place in self.found]


def strongest_table(
    model: HookedVLM,
    soft: SoftPrompt,
    targets: Sequence[Target],
    found: list[list[tuple[float, Neuron, int]]],
    patches: tuple[Patch | Marker, ...],
    active: Mapping[Neuron, torch.Tensor],
    through: str | Translators = "unembed",
) -> pd.DataFrame:
    """One row per token and neuron: token, neuron, patch, score, active, sign, words, ...

    Args:
        soft: the prompt and the caption.
        targets: of the tokens.
        found: per token (score, neuron, index of the patch).
        patches: the positions of the picture; a query is a marker.
        active: the activations of each neuron at all patches.
        through: how neurons are decoded; "effect" where the token is predicted.
    """
    import pandas as pd

    rows = [
        {"token": aimed.token, "neuron": neuron, "patch": patches[place], "score": score,
         "active": float(active[neuron][place])}
        for aimed, top in zip(targets, found, strict=True)
        for score, neuron, place in top
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["token", "neuron", "patch", "score", "active"])
    table["sign"] = [sign_of(value) for value in table["active"]]
    keys = ["neuron", "sign"]
    if through != "effect":
        return table.merge(decode(model, table, through=through), on=keys, how="left")
    parts = []
    for aimed in targets:
        own: Any = table[table["token"] == aimed.token]
        here = soft.between(0, aimed.position + 1)
        said = decode(model, own, through=through, prompt=here)
        parts.append(own.merge(said, on=keys, how="left"))
    return pd.concat(parts, ignore_index=True)


def ends_in(
    model: HookedVLM,
    table: pd.DataFrame,
    firing: pd.DataFrame | None,
    through: str | Translators = "unembed",
) -> pd.DataFrame:
    """What the neurons decode to at the signs that they have in these tables.

    An effect is measured on a token: neurons that only fire have none, and are decoded by the
    unembedding.
    """
    import pandas as pd

    columns = ["neuron", "sign", "words", "probs", "interpretable"]
    first: Any = table.drop_duplicates(["neuron", "sign"])[columns]
    if firing is None:
        return first.reset_index(drop=True)
    how = "unembed" if through == "effect" else through
    more = decode(model, list(firing["neuron"]), active=list(firing["value"]), through=how)
    both: Any = pd.concat([first, more[columns]], ignore_index=True)
    return both.drop_duplicates(["neuron", "sign"]).reset_index(drop=True)
