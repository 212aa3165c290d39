"""The gain of a norm, measured from its output: names and conventions differ by architecture.

Gemma stores `gain - 1`, and some norms centre while others do not. A measured gain is right for
all, also after the weights were changed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def gain_of(
    norm: Callable[[torch.Tensor], torch.Tensor],
    size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Float[Tensor, " size"], bool]:
    """The gain Float[size] of a norm and whether it centres."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, size, generator=generator).to(device, torch.float32)
    with torch.no_grad():
        read = lambda v: norm(v.to(dtype)).float()  # noqa: E731
        scaled = (read(x) - read(-x)) / 2
        centres = bool((read(x + 3.0) - read(x)).abs().max() < 0.05)
    y = x - x.mean() if centres else x
    return (scaled / (y / y.pow(2).mean().sqrt())).flatten(), centres


def through(
    gain: Float[Tensor, " size"], centres: bool, directions: Float[Tensor, "*lead size"]
) -> Float[Tensor, "*lead size"]:
    """Directions after a norm whose scale (one number per position) is held constant."""
    if centres:
        directions = directions - directions.mean(-1, keepdim=True)
    return directions * gain.to(directions)
