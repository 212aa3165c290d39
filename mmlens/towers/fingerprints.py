"""A few numbers that depend on weights, to tell whose numbers a saved thing was made with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def few_numbers(tables: Sequence[Tensor]) -> list[float]:
    """The products of these rows with one drawn vector each, in four digits.

    Args:
        tables: each Float[row, dim].
    """
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randn(table.shape[1], generator=draw) for table in tables]
    told = [table.float().cpu() @ row for table, row in zip(tables, rows, strict=True)]
    return [float(f"{value:.4g}") for value in torch.cat(told).tolist()]
