"""Gauss-Legendre quadrature on [0, 1]: exact for polynomials of degree 2n - 1 with n nodes."""

from __future__ import annotations

import torch
from jaxtyping import Float

from mmlens.errors import AddressError


def gauss_legendre(
    steps: int, like: torch.Tensor
) -> tuple[Float[torch.Tensor, " node"], Float[torch.Tensor, " node"]]:
    """Nodes and weights, float32 on the device of `like`.

    Raises:
        AddressError: fewer than one step.
    """
    import numpy as np

    if steps < 1:
        raise AddressError(f"steps={steps} gives no integral: write at least 1 (16 is good).")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    place = {"dtype": torch.float32, "device": like.device}
    return torch.tensor((nodes + 1) / 2, **place), torch.tensor(weights / 2, **place)
