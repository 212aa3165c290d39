"""Gradients of one number of the logits, exact enough in half precision too.

The probability of an unlikely word has a gradient of its own magnitude (1e-6), and in the backward
pass of a float16 model most of it would round to zero. So the backward pass starts from the
gradient at the logits, computed in float32 and scaled to a largest entry between 1 and 2 (by a
power of two, which is exact); the result is divided by that factor in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mmlens.values.errors import AddressError

_HALF = (torch.float16, torch.bfloat16)


def seed(
    logits: torch.Tensor, number: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """The gradient of `number(logits)` at the logits times a power of two, and that power."""
    with torch.enable_grad():
        leaf = wide(logits.detach()).requires_grad_()
        grad = torch.autograd.grad(number(leaf), leaf)[0]
    top = float(grad.abs().max())
    power = 2.0 ** -math.floor(math.log2(top)) if 0.0 < top < math.inf else 1.0
    return (grad * power).to(logits.dtype), power


def pull(
    logits: torch.Tensor, number: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor
) -> torch.Tensor:
    """The gradient of `number(logits)` at an earlier tensor, at least in float32."""
    if not logits.requires_grad:
        raise AddressError(
            "What is explained does not depend on this layer, which comes after it: name earlier"
            " layers, as in layer=[0, 1]."
        )
    out, power = seed(logits, number)
    return wide(torch.autograd.grad(logits, at, grad_outputs=out)[0]) / power


def wide(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32; the rest as it is."""
    return values.float() if values.dtype in _HALF else values
