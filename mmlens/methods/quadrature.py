"""Integrals of gradients over a straight line from t = 0 to t = 1, checked by their sum.

Gauss-Legendre quadrature is exact for polynomials of degree 2n - 1 with n nodes. Activations
followed by a norm are not: the norm of t z is that of z for all t except the smallest, so that the
function changes there, between the nodes. But the sum is known: integrated gradients add up to the
change of the quantity between the two ends, y(1) - y(0), which takes two more passes. Where 16
nodes miss it, t = s^4 concentrates more of them near 0 (`complete`), and a remaining error is
reported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float

from mmlens.model.targets import finite
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError

Nodes = Float[torch.Tensor, " node"]
TOLERANCE = 0.01
"""How much may be missing: of the change, or of a tenth of the sum of magnitudes, if that is more.
The rounding of the dtype is added."""
MOST = 1000
"""The most nodes: computing n of them takes a matrix of n x n."""
_LADDER = ((1, 1), (2, 4), (4, 4))
"""(multiple of the nodes, power of s), tried in order until nothing is missing."""


@dataclass(frozen=True)
class Integral:
    """Attributions, and the error of their sum.

    Attributes:
        values: (z - b) times the mean gradient.
        change: y(z) - y(b), which they should add up to.
        missing: the change minus their sum.
        nodes: the final number of nodes.
    """

    values: torch.Tensor
    change: float
    missing: float
    nodes: int


def complete(
    integrate: Callable[[Nodes, Nodes], torch.Tensor],
    ends: Float[torch.Tensor, " end"],
    steps: int,
    dtype: torch.dtype,
    what: str,
) -> Integral:
    """The integral with `steps` nodes, or with up to four times as many where they miss a part.

    Args:
        integrate: (nodes, weights) -> the values whose sum is the change.
        ends: the number at t = 0 and at t = 1.
        dtype: of the model, which rounds both ends.
        what: the name of the attributions in the warning.

    Raises:
        AddressError: fewer than one step.
    """
    finite(ends, f"the number that {what} explain")
    low, high = (float(end) for end in ends)
    found: list[Integral] = []
    for times, power in _LADDER:
        nodes, weights = gauss_legendre(steps * times, ends, power)
        values = integrate(nodes, weights)
        missing = high - low - float(values.float().sum())
        found.append(Integral(values, high - low, missing, len(nodes)))
        finite(values, what)
        if abs(missing) <= _allowed(found[-1], abs(low) + abs(high), dtype):
            return found[-1]
    best = min(found, key=lambda one: abs(one.missing))
    warnings.warn(
        f"{what[0].upper()}{what[1:]} add up to {best.change - best.missing:.3g} with"
        f" {best.nodes} steps, where the number changes by {best.change:.3g}: {best.missing:.3g} is"
        f" missing, so the scores are an estimate; write more steps than {steps}.",
        stacklevel=3,
    )
    return best


def _allowed(found: Integral, size: float, dtype: torch.dtype) -> float:
    scale = max(abs(found.change), float(found.values.float().abs().sum()) / 10)
    return TOLERANCE * scale + 8 * torch.finfo(dtype).eps * size


def gauss_legendre(steps: int, like: torch.Tensor, power: int = 1) -> tuple[Nodes, Nodes]:
    """Nodes t = s^power and weights on [0, 1], float32 on the device of `like`.

    Raises:
        AddressError: fewer than one step.
    """
    import numpy as np

    steps = count(steps, "steps", error=AddressError)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    nodes, weights = (nodes + 1) / 2, weights / 2
    place = {"dtype": torch.float32, "device": like.device}
    return (
        torch.tensor(nodes**power, **place),
        torch.tensor(weights * power * nodes ** (power - 1), **place),
    )
