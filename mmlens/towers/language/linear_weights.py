"""A linear layer's weights from its outputs, for layers that hold them in another form."""

from __future__ import annotations

import torch
from torch import nn

_ROWS = 1024
"""The largest number of inputs in one call of a layer."""


def all_rows(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The outputs for these inputs, a part of them at a time."""
    return torch.cat([layer(part) for part in inputs.split(_ROWS)])
