"""Labels of the indices of an axis: patches, markers, tokens, padding, neurons, heads.

A label is an address as well: `scores.sel(Neuron(3, 17))` reads it, `Edit("neurons", 0.0,
Neuron(3, 17))` ablates it. Layers, units and heads count from 0, as in TransformerLens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmlens.values.errors import AddressError

LM = "lm"
"""The default tower of a Neuron or Head: the language model."""
TEXT = "text"
"""The tower of a dual encoder that reads texts."""
DENOISER = "denoiser"
"""The tower of a diffusion model that predicts noise, once a step."""


@dataclass(frozen=True, order=True)
class Patch:
    """A square of a picture: row and column in its grid, and which picture of the prompt.

    Where an encoder reads a picture in several crops (tiles, a thumbnail), each crop has its own
    grid, and `crop` is its number: 0 is the first that the model reads.
    """

    row: int
    col: int
    image: int = 0
    crop: int = 0

    def __str__(self) -> str:
        crop = f" of crop {self.crop}" if self.crop else ""
        return f"({self.row}, {self.col}){crop}" + (
            f" of picture {self.image}" if self.image else ""
        )


@dataclass(frozen=True, order=True)
class Marker:
    """A position of a picture that is not a patch: CLS, a register, a newline, a query.

    Attributes:
        name: its name in the model's config.
        at: its index among the positions of its picture (or crop).
    """

    name: str
    at: int
    image: int = 0
    crop: int = 0

    def __str__(self) -> str:
        return f"[{self.name}]"


@dataclass(frozen=True, order=True)
class Token:
    """A word piece: its text and its position in the prompt (padding not counted)."""

    text: str
    at: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, order=True)
class Padding:
    """A position that fills up a shorter prompt of a batch; masked, and never addressed."""

    at: int


Label = Patch | Marker | Token | Padding


@dataclass(frozen=True, order=True)
class Neuron:
    """Hidden unit `unit` of the MLP in layer `layer`, printed `L14.2019`.

    It belongs to the language model unless `tower` names another: `vision.L3.17`. In a map of a
    convolution the units are its channels. In a mixture of experts it is a unit of the expert
    `expert`, printed `L14.e3.2019`.
    """

    layer: int
    unit: int
    tower: str = LM
    expert: int | None = None

    def __str__(self) -> str:
        expert = "" if self.expert is None else f"e{self.expert}."
        return f"{_of(self.tower)}L{self.layer}.{expert}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Neuron:
        """`"L14.2019"` (or the paper's `"L14.u2019"`, `"vision.L3.17"`, `"L14.e3.2019"`)."""
        match = re.fullmatch(r"(?:([a-z]\w*)\.)?L(\d+)\.(?:e(\d+)\.)?u?(\d+)", text.strip())
        if match is None:
            raise AddressError(f"{text!r} is not a neuron: write it as L14.2019 (layer.unit).")
        expert = None if match[3] is None else int(match[3])
        return cls(int(match[2]), int(match[4]), match[1] or LM, expert)


@dataclass(frozen=True, order=True)
class Head:
    """Attention head `head` of layer `layer`, printed `L3H5`: heads are counted by queries.

    With grouped-query attention several heads read the same keys and values. At "k" and "v" a Head
    addresses the key or value head that it reads, which its whole group shares; the axis `head`
    there counts key and value heads, and a plain `head=1` is an index of that axis.
    """

    layer: int
    head: int
    tower: str = LM

    def __str__(self) -> str:
        return f"{_of(self.tower)}L{self.layer}H{self.head}"


def _of(tower: str) -> str:
    return "" if tower == LM else f"{tower}."
