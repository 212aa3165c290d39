"""Maps of convolutions: a grid of positions with a value per channel at each.

Libraries store them [channel, row, col] or [row, col, channel]. Where an address names patches
(`pos=Patch(0, 3)`), a map is read as positions in reading order, [pos, channel], and written back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAP = ("channel", "row", "col")
"""The axes of a map as most libraries store it."""


def is_map(axes: Sequence[str]) -> bool:
    """Whether these are the axes of a map."""
    return "row" in axes and "col" in axes


def inner_of(axes: Sequence[str]) -> str:
    """The axis of a map besides rows and columns: "channel" or "unit"."""
    return next(axis for axis in axes if axis not in ("row", "col"))


def as_positions(values: torch.Tensor, axes: Sequence[str]) -> torch.Tensor:
    """A map [..., *axes] as [..., pos, channel], without a copy where that is possible."""
    if axes[-1] in ("row", "col"):
        return values.flatten(-2).transpose(-1, -2)
    return values.flatten(-3, -2)


def as_map(flat: torch.Tensor, like: torch.Tensor, axes: Sequence[str]) -> torch.Tensor:
    """[..., pos, channel] as the map that it was read from."""
    if axes[-1] in ("row", "col"):
        flat = flat.transpose(-1, -2)
    return flat.reshape(like.shape)
