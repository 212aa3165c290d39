"""The strongest neurons of every token as a table, with the sign at which each one speaks.

A neuron whose activation is negative writes minus its output row, so what it says there are the
words of that end (`mmlens.methods.decode`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.decode import decode, sign_of
from mmlens.values.labels import Neuron, Token

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


class Strongest:
    """The k neurons of largest score seen so far, each at its best patch."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.found: list[tuple[float, int, int, int]] = []

    def add(self, layer: int, product: torch.Tensor) -> None:
        """Take in a layer's product Float[patch, unit]."""
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
    tokens: tuple[Token, ...],
    found: list[list[tuple[float, Neuron, int]]],
    patches: tuple[Any, ...],
    active: Mapping[Neuron, torch.Tensor],
) -> pd.DataFrame:
    """One row per token and neuron: token, neuron, patch, score, active, sign, words, ...

    Args:
        found: per token (score, neuron, index of the patch).
        active: the activations of each neuron at all patches.
    """
    import pandas as pd

    rows = [
        {"token": token, "neuron": neuron, "patch": patches[place], "score": score,
         "active": float(active[neuron][place])}
        for token, top in zip(tokens, found, strict=True)
        for score, neuron, place in top
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["token", "neuron", "patch", "score", "active"])
    table["sign"] = [sign_of(value) for value in table["active"]]
    return table.merge(decode(model, table), on=["neuron", "sign"], how="left")


def ends_in(model: HookedVLM, table: pd.DataFrame, firing: pd.DataFrame | None) -> pd.DataFrame:
    """What the neurons say at the signs that they have in these tables."""
    neurons, active = list(table["neuron"]), list(table["active"])
    if firing is not None:
        neurons, active = [*neurons, *firing["neuron"]], [*active, *firing["value"]]
    return decode(model, neurons, active=active)
