"""What stands at an index of an axis: a patch, a token, padding, a neuron, a head.

A label is an address as well: `scores.sel(Neuron(3, 17))` reads it, `Edit("neurons", 0.0,
Neuron(3, 17))` silences it. Layers, units and heads count from 0, as in TransformerLens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmlens.values.errors import AddressError


@dataclass(frozen=True, order=True)
class Patch:
    """A square of a picture: row and column in its grid, and which picture of the prompt."""

    row: int
    col: int
    image: int = 0

    def __str__(self) -> str:
        return f"({self.row}, {self.col})" + (f" of picture {self.image}" if self.image else "")


@dataclass(frozen=True, order=True)
class Token:
    """A word piece at its place: its text and its position in the prompt (padding not counted)."""

    text: str
    at: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, order=True)
class Padding:
    """A position that fills up a shorter prompt of a batch; masked, and never addressed."""

    at: int


Label = Patch | Token | Padding


@dataclass(frozen=True, order=True)
class Neuron:
    """Hidden unit `unit` of the MLP in layer `layer`, printed `L14.2019`."""

    layer: int
    unit: int

    def __str__(self) -> str:
        return f"L{self.layer}.{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Neuron:
        """`"L14.2019"` (or the paper's `"L14.u2019"`) as a Neuron."""
        match = re.fullmatch(r"L(\d+)\.u?(\d+)", text.strip())
        if match is None:
            raise AddressError(f"{text!r} is not a neuron: write it as L14.2019 (layer.unit).")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, order=True)
class Head:
    """Attention head `head` of layer `layer`, printed `L3H5`: one of those that have queries.

    With grouped-query attention several heads read the same keys and values. At "k" and "v" a Head
    is the one that it reads, whose whole group hears of it; the axis `head` there counts keys and
    values, and a plain `head=1` is a place on that axis.
    """

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"
