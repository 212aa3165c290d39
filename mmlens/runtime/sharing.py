"""A copy of a module that shares its memory: changes to the copy's tree stay in the copy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from mmlens.runtime.autograd import differentiable


def share_weights(module: nn.Module) -> nn.Module:
    """A frozen copy of a module tree over the same memory, in eval mode.

    Parameters and buffers are new tensor objects on the old storage, so freezing, moving or
    casting the copy leaves the caller's module as it is.

    Raises:
        CapabilityError: it was made inside `torch.inference_mode()`.
    """
    differentiable(module)
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        if type(tensor) is nn.Parameter:
            memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
        else:
            memo[id(tensor)] = tensor.detach() if type(tensor) is torch.Tensor else tensor
    for part in module.modules():  # weight norm keeps the weight that it computes, with its graph
        made = [x for x in vars(part).values() if isinstance(x, torch.Tensor) and not x.is_leaf]
        memo |= {id(tensor): tensor.detach() for tensor in made}
    return copy.deepcopy(module, memo).requires_grad_(False).eval()
