"""Labels of the indices of an axis: patches, markers, tokens, padding, neurons, heads.

A label is an address as well: `scores.sel(Neuron(3, 17))` reads it, `Edit("neurons", 0.0,
Neuron(3, 17))` ablates it. Layers, units and heads count from 0, as in TransformerLens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mmlens.values.errors import AddressError, ArgumentError
from mmlens.values.label_fields import as_call, beside, named, printed, put

LM = "lm"
"""The default tower of a Neuron or Head: the language model."""
TEXT = "text"
"""The tower of a dual encoder that reads texts."""
MULTIMODAL = "multimodal"
"""The tower that reads what an image encoder and a text encoder hold, both together (FLAVA)."""
DENOISER = "denoiser"
"""The tower of a diffusion model that predicts noise, once a step."""
DICTIONARY = "sae"
"""In the place of a tower: units of dictionaries on the language model; "vision.sae" on vision."""
_TOWER = rf"[a-z]\w*(?:\.{DICTIONARY})?"


@dataclass(frozen=True, order=True, init=False)
class Patch:
    """A square of a picture: row and column in its grid, and which picture of the prompt.

    What is printed can be given instead: `Patch("(5, 2)")`, and so can the pair `Patch((5, 2))`.

    Where an encoder reads a picture in several crops (tiles, a thumbnail), each crop has its own
    grid, and `crop` is its number: 0 is the first that the model reads.
    """

    row: int
    col: int
    image: int = 0
    crop: int = 0

    def __init__(
        self,
        row: int | str | tuple[int, int],
        col: int | None = None,
        image: int = 0,
        crop: int = 0,
    ) -> None:
        if col is None:
            row, col, image, crop = _printed_patch(row, image, crop)
        put(self, row=row, col=col, image=image, crop=crop)

    @classmethod
    def parse(cls, text: str) -> Patch:
        """`"(5, 2)"` (or `"(5, 2) of crop 1 of picture 1"`)."""
        match = re.fullmatch(
            r"\((\d+), ?(\d+)\)(?: of crop (\d+))?(?: of picture (\d+))?", text.strip()
        )
        if match is None:
            raise AddressError(f"{text!r} is no patch: write it as '(5, 2)' (row, column).")
        row, col, crop, image = (int(part or 0) for part in match.groups())
        return cls(row, col, image, crop)

    def __str__(self) -> str:
        crop = f" of crop {self.crop}" if self.crop else ""
        return f"({self.row}, {self.col}){crop}" + (
            f" of picture {self.image}" if self.image else ""
        )

    def __repr__(self) -> str:
        return as_call(self, self.row, self.col, image=self.image, crop=self.crop)


NUMBERED = ("query", "latent")
"""Markers that print their number: a picture has many, and nothing else tells one from another."""


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
        return f"[{self.name} {self.at}]" if self.name in NUMBERED else f"[{self.name}]"


@dataclass(frozen=True, order=True)
class Token:
    """A word piece: its text and its position in the prompt (padding not counted)."""

    text: str
    at: int

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ArgumentError(
                f"Token({self.text!r}, {self.at!r}): write its text and its position, as in"
                " Token(' dog', 3)."
            )
        if type(self.at) is not int:
            put(self, at=self.at)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return as_call(self, self.text, self.at)


@dataclass(frozen=True, order=True)
class Padding:
    """A position that fills up a shorter prompt of a batch; masked, and never addressed."""

    at: int


Label = Patch | Marker | Token | Padding


@dataclass(frozen=True, order=True, init=False)
class Neuron:
    """Hidden unit `unit` of the MLP in layer `layer`, printed `L14.2019`.

    What is printed can be given instead: `Neuron("L14.2019")`. It belongs to the language model
    unless `tower` names another: `vision.L3.17`. In a map of a convolution the units are its
    channels. In a mixture of experts it is a unit of the expert `expert`, printed `L14.e3.2019`.
    A unit of an attached dictionary is `Neuron(14, 2019, "sae")`, printed `sae.L14.2019`.
    """

    layer: int
    unit: int
    tower: str = LM
    expert: int | None = None

    def __init__(
        self, layer: int | str, unit: int | None = None, tower: str = LM, expert: int | None = None
    ) -> None:
        if unit is None or isinstance(layer, str):
            told = printed(Neuron, layer, unit)
            layer, unit, tower, expert = (
                *told[:2],
                *beside(told, tower=(tower, LM), expert=(expert, None)),
            )
        put(self, layer=layer, unit=unit)
        object.__setattr__(self, "tower", named(Neuron, tower, _TOWER))
        if expert is not None:
            put(self, expert=expert)
        else:
            object.__setattr__(self, "expert", None)

    def __repr__(self) -> str:
        towers = () if self.tower == LM else (self.tower,)
        return as_call(self, self.layer, self.unit, *towers, expert=self.expert)

    def __str__(self) -> str:
        expert = "" if self.expert is None else f"e{self.expert}."
        return f"{_of(self.tower)}L{self.layer}.{expert}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Neuron:
        """`"L14.2019"` (or the paper's `"L14.u2019"`, `"vision.L3.17"`, `"L14.e3.2019"`)."""
        match = re.fullmatch(rf"(?:({_TOWER})\.)?L(\d+)\.(?:e(\d+)\.)?u?(\d+)", text.strip())
        if match is None:
            raise AddressError(f"{text!r} is no neuron: write it as 'L14.2019' (layer.unit).")
        expert = None if match[3] is None else int(match[3])
        return cls(int(match[2]), int(match[4]), match[1] or LM, expert)


@dataclass(frozen=True, order=True, init=False)
class Head:
    """Attention head `head` of layer `layer`, printed `L3H5`: heads are counted by queries.

    What is printed can be given instead: `Head("L3H5")`.

    With grouped-query attention several heads read the same keys and values. At "k" and "v" a Head
    addresses the key or value head that it reads, which its whole group shares; the axis `head`
    there counts key and value heads, and a plain `head=1` is an index of that axis.
    """

    layer: int
    head: int
    tower: str = LM

    def __init__(self, layer: int | str, head: int | None = None, tower: str = LM) -> None:
        if head is None or isinstance(layer, str):
            told = printed(Head, layer, head)
            layer, head, tower = (*told[:2], *beside(told, tower=(tower, LM)))
        put(self, layer=layer, head=head)
        object.__setattr__(self, "tower", named(Head, tower, _TOWER))

    def __repr__(self) -> str:
        return as_call(self, self.layer, self.head, *(() if self.tower == LM else (self.tower,)))

    def __str__(self) -> str:
        return f"{_of(self.tower)}L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """`"L3H5"` (or `"vision.L3H5"`)."""
        match = re.fullmatch(r"(?:([a-z]\w*)\.)?L(\d+)H(\d+)", text.strip())
        if match is None:
            raise AddressError(f"{text!r} is no head: write it as 'L3H5' (layer, head).")
        return cls(int(match[2]), int(match[3]), match[1] or LM)


def _printed_patch(given: Any, image: Any, crop: Any) -> tuple[Any, ...]:
    """The fields of a Patch that is given as it prints, or as a pair.

    Raises:
        ArgumentError: one number alone.
    """
    if isinstance(given, str):
        found = Patch.parse(given)
        return found.row, found.col, found.image or image, found.crop or crop
    if not isinstance(given, Patch) and hasattr(given, "tolist"):  # an array, a tensor
        given = given.tolist()
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return *given, image, crop
    raise ArgumentError(
        f"Patch({given!r}) names no patch: write Patch(5, 2), row and column, or what it prints,"
        " '(5, 2)'."
    )


def host_of(tower: str) -> str:
    """The tower that runs: "lm" of "sae", "vision" of "vision.sae", and any other itself."""
    return LM if tower == DICTIONARY else tower.removesuffix(f".{DICTIONARY}")


def _of(tower: str) -> str:
    return "" if tower == LM else f"{tower}."
