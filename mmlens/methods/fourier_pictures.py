"""Pictures as spectra with decorrelated colours, and as an encoder sees them, a little moved.

What is optimised is a spectrum per picture and colour component, not its pixels: pixels of natural
pictures are correlated in space and in colour, and a step in a decorrelated space is one towards
natural pictures instead of noise (Olah et al., Feature Visualization, Distill 2017; Mordvintsev et
al., Differentiable Image Parameterizations, Distill 2018):

    picture = sigmoid(C irfft2(spectrum * s) / 4),    s ~ max(|frequency|, 1 / side)^-1.5

with s scaled to the contrast of Lucid's exponent -1 (which leaves the small pictures of small
encoders grainy), and C the square root of the covariance of the colours of ImageNet. Everything
here keeps gradients and works on all pictures of a batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Square root of the covariance of the colours of ImageNet (rows red, green, blue; from Lucid)."""
DECAY = 1.5  # of the amplitudes with the frequency
CONTRAST = 4.0  # Lucid's divisor, against saturated colours
NOISE = 0.01  # the standard deviation of a spectrum at the start
TURN, ZOOM, SHIFT = 8.0, 0.1, 1 / 16
"""How far a view is turned (degrees), zoomed (share) and shifted (share of the side), at most."""


def start(seeds: Sequence[int], size: tuple[int, int]) -> Float[Tensor, "picture 3 row freq 2"]:
    """Spectra of faint noise, each picture's from a seed of its own.

    Args:
        size: (rows, columns) of the pictures.
    """
    shape = (3, size[0], size[1] // 2 + 1, 2)
    return torch.stack([NOISE * torch.randn(shape, generator=_draw(seed)) for seed in seeds])


def pictures(
    spectra: Float[Tensor, "picture 3 row freq 2"], size: tuple[int, int]
) -> Float[Tensor, "picture 3 row col"]:
    """The pictures of spectra, red, green and blue from 0 to 1."""
    rows, cols = size
    down, across = torch.fft.fftfreq(rows), torch.fft.rfftfreq(cols)
    frequency = torch.hypot(down[:, None], across[None]).clamp(min=1 / max(rows, cols))
    scale = frequency**-DECAY * (1 / frequency).norm() / (frequency**-DECAY).norm()
    scaled = torch.view_as_complex(spectra * scale[..., None].to(spectra))
    values = torch.fft.irfft2(scaled, s=size, norm="ortho") / CONTRAST
    mix = torch.tensor(COLOURS).to(values)
    mix = mix / mix.norm(dim=0).max()
    return torch.einsum("rc,pcij->prij", mix, values).sigmoid()


def moves(seeds: Sequence[int], steps: int, robustness: float) -> Float[Tensor, "step picture 4"]:
    """Random turns, zooms and shifts (down, across) from -1 to 1, scaled, for every step."""
    drawn = [torch.rand(steps, 4, generator=_draw(seed + 1)) for seed in seeds]
    return (2 * torch.stack(drawn, 1) - 1) * robustness


def as_seen(
    rgb: Float[Tensor, "picture 3 row col"], recipe: Any, move: Float[Tensor, "picture 4"]
) -> Float[Tensor, "picture 3 h w"]:
    """Pictures turned, zoomed and shifted, then as the encoder's recipe would give them.

    One sampling does all of it: resizing, cropping and the move.

    Args:
        recipe: the encoder's `Pixels`.
        move: shares of `TURN`, `ZOOM` and `SHIFT`; zeros leave the pictures where they are.
    """
    rows, cols = rgb.shape[-2:]
    wide, high, left, top = recipe.window(cols, rows)
    h, w = recipe.size
    turn, zoom = torch.deg2rad(TURN * move[:, 0]), 1 + ZOOM * move[:, 1]
    cos, sin = turn.cos() / zoom, turn.sin() / zoom
    moved = torch.stack(
        [
            torch.stack([cos, -sin * rows / cols, 2 * SHIFT * move[:, 3]], -1),
            torch.stack([sin * cols / rows, cos, 2 * SHIFT * move[:, 2]], -1),
        ],
        1,
    )
    crop = torch.tensor(
        [[w / wide, 0, (2 * left + w) / wide - 1], [0, h / high, (2 * top + h) / high - 1],
         [0, 0, 1]]
    )  # fmt: skip
    grid = F.affine_grid((moved @ crop.to(moved)).to(rgb), [len(rgb), 3, h, w], align_corners=False)
    seen = F.grid_sample(rgb, grid, padding_mode="reflection", align_corners=False)
    return normalised(seen, recipe)


def normalised(rgb: Float[Tensor, "picture 3 h w"], recipe: Any) -> Float[Tensor, "picture 3 h w"]:
    """Red, green and blue from 0 to 1 on the encoder's scale and in its order."""
    mean, std = (torch.tensor(v).to(rgb)[:, None, None] for v in (recipe.mean, recipe.std))
    values = rgb.flip(1) if recipe.channels == "BGR" else rgb
    return (values * (255 * recipe.rescale) - mean) / std


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
