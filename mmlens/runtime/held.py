"""Functions that are linear once something is held: norms, attention, nonlinearities.

While a `Held` is on, the graph of a forward pass takes as constants

    the standard deviation that a norm divides by       LayerNorm(x) = gain (x - mean(x)) / s + bias
    the pattern of attention                            z = pattern v
    what a nonlinearity puts out

so what is left of it is affine in its input, with the very values of the model. It is how shares of
a sum are carried through a final norm (Elhage et al. 2021; Gandelsman et al. 2024, eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Held(TorchFunctionMode):
    """A mode for `with`; attribute `on` says whether anything is held."""

    on = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        how = _HOW.get(func) if self.on else None
        return func(*args, **kwargs) if how is None else how(func, *args, **kwargs)


def _layer_norm(
    func: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    over = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(over, keepdim=True)
    out = centred * (centred.detach().square().mean(over, keepdim=True) + eps).rsqrt()
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _rms_norm(
    func: Any, input: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Tensor:
    over = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    out = input * (input.detach().square().mean(over, keepdim=True) + eps).rsqrt()
    return out if weight is None else out * weight


def _first(func: Any, *args: Any, **kwargs: Any) -> Any:
    if args:
        return func(args[0].detach(), *args[1:], **kwargs)
    return func(**{**kwargs, "input": kwargs["input"].detach()})


def _first_two(func: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
    return func(query.detach(), key.detach(), *args, **kwargs)


_HOW: dict[Any, Callable[..., Any]] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.scaled_dot_product_attention: _first_two,
    F.multi_head_attention_forward: _first_two,
    **dict.fromkeys((torch.rsqrt, Tensor.rsqrt, torch.sqrt, Tensor.sqrt), _first),
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), _first),
    **dict.fromkeys((F.gelu, F.relu, torch.relu, F.silu, F.hardswish, F.relu6), _first),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh), _first),
}
