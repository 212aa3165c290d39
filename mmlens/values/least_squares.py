"""Least squares whose answer does not hang on rounding.

Rows that a norm has centred have no part along one direction but what float32 rounds to, and a fit
that is free along it puts any number there: another on every machine, and another each time the
weights lie elsewhere in memory. So directions that are `LEAST` times weaker than the strongest one
are taken for nothing, and of all answers that fit the shortest is given.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 1e-5


def least_squares(
    x: Float[Tensor, "row in"], y: Float[Tensor, "row out"]
) -> Float[Tensor, "in out"]:
    """The shortest A that minimises ||x A - y||, by singular values in float64 on the CPU."""
    rows, wanted = x.detach().double().cpu(), y.detach().double().cpu()
    found = torch.linalg.lstsq(rows, wanted, rcond=LEAST, driver="gelsd").solution
    return found.to(y.device, y.dtype)
