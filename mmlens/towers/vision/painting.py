"""The test picture of an encoder, and what repainting parts of it changes.

Where the upper half of the picture is repainted, the upper rows of a map change the most, whatever
the order of its axes; so the axis of rows is identified by what changes along it, not by its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from mmlens.towers.vision.encoder import HookedVision

CLEAR = 0.1
"""The smallest difference of two leanings that decides between them."""
CONTRADICTION = 0.5
"""The same where the sizes of the axes contradict it: small maps, whose every cell reads the
whole picture, lean by chance up to 0.35."""


def ramp(vision: HookedVision) -> Float[Tensor, "1 3 h w"]:
    """A fixed test picture (no random numbers are drawn)."""
    rows, cols = vision.image_size
    values = torch.linspace(-7, 7, 3 * rows * cols).sin().reshape(1, 3, rows, cols)
    return values.to(vision.device, vision.dtype)


def halves(vision: HookedVision) -> Float[Tensor, "4 3 h w"]:
    """The test picture as it is, all repainted, its upper half repainted, its left half."""
    plain, (high, wide) = ramp(vision), vision.image_size
    upper, left = plain.clone(), plain.clone()
    upper[..., : high // 2, :] = 1.0 - upper[..., : high // 2, :]
    left[..., : wide // 2] = 1.0 - left[..., : wide // 2]
    return torch.cat((plain, 1.0 - plain, upper, left))


def leanings(values: Float[Tensor, "4 a b c"]) -> tuple[list[float], list[float]]:
    """Per axis of a map, how much it is like rows and how much like columns, from -2 to 2.

    Args:
        values: the activations of `halves` at one hook point.

    Returns:
        For each of the three axes: the share that repainting the upper half has in the changes of
        the axis' first half, less its share in the second half; the same with the left half.
    """
    plain, all_over, upper, left = values.float()
    rows = _share((upper - plain).abs(), (all_over - upper).abs())
    cols = _share((left - plain).abs(), (all_over - left).abs())
    return [_falls(rows, axis) for axis in range(3)], [_falls(cols, axis) for axis in range(3)]


def keeps_aspect(rows: int, cols: int, vision: HookedVision) -> bool:
    """Whether cells of such a grid are as high as wide, up to the rounding of its edge."""
    high, wide = vision.image_size
    return abs(rows * wide - cols * high) < max(high, wide)


def _share(near: Tensor, far: Tensor) -> Tensor:
    """1 where only the first of two paintings changed a value, -1 where only the second did."""
    return (near - far) / (near + far).clamp(min=1e-12)


def _falls(share: Tensor, axis: int) -> float:
    """The mean over the first half of an axis less that over its second half."""
    along = share.movedim(axis, 0).flatten(1).mean(1)
    half = len(along) // 2
    return float(along[:half].mean() - along[len(along) - half :].mean()) if half else 0.0
