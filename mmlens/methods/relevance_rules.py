"""The rules of layer-wise relevance propagation, as a forward pass whose gradient obeys them.

Within this mode every operation gives its own values, but what is differentiated is a map that is
linear (so that input * gradient is what it hands down, without loss) up to biases:

    y = f(x) elementwise (an activation)     x * const(y / x)              identity rule
    the scale of a norm (1 / std, 1 / rms)   const                         identity rule
    a sigmoid, an erf                        const, as in x * sigmoid(x)   identity rule of x * .
    a * b, both depending on the input       half of R to each             uniform rule
    x W + b                                  as it is                      0-rule; b keeps its share

Achtibat et al. (2024, arXiv 2402.05602), section 3 and appendix; what biases keep is recorded, so
that nothing is lost unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

EPS = {torch.float64: 1e-12}
"""Added to what is divided by, with its sign; 1e-6 in formats that are not listed."""

CONSTANT = {
    torch.rsqrt, Tensor.rsqrt, torch.sqrt, Tensor.sqrt, torch.norm, Tensor.norm,
    torch.linalg.norm, torch.linalg.vector_norm, torch.std, Tensor.std, torch.sigmoid,
    Tensor.sigmoid, F.sigmoid, torch.erf, Tensor.erf,
}  # fmt: skip
"""What is held constant: the scales of norms, and factors of activations that are written out."""
ELEMENTWISE = {
    torch.relu, Tensor.relu, F.relu, F.relu6, F.gelu, F.silu, F.leaky_relu, F.elu, F.mish,
    F.softplus, F.hardswish, torch.tanh, Tensor.tanh, F.tanh,
}  # fmt: skip
PRODUCTS = {torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__,
            Tensor.__rmul__}  # fmt: skip
SUMS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__,
        torch.sub, torch.subtract, Tensor.sub, Tensor.subtract, Tensor.__sub__,
        Tensor.__rsub__}  # fmt: skip
"""Sums and differences, one of whose terms may not depend on the input."""


class RelevanceRules(TorchFunctionMode):
    """A context in which operations are differentiated by these rules.

    Attributes:
        biases: what was added that does not depend on the input, as leaves of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.biases: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if not torch.is_grad_enabled():
            return func(*args, **options)
        if func in CONSTANT:
            return func(*args, **options).detach()
        if func in ELEMENTWISE:
            options.pop("inplace", None)
            return like_a_factor(args[0], func(args[0].clone(), *args[1:], **options))
        if func in PRODUCTS and all(isinstance(x, Tensor) and x.requires_grad for x in args[:2]):
            return halved(func(*args, **options))
        if func in SUMS and not options:
            args = self._summed(*args)
        own = _OWN.get(func)
        return func(*args, **options) if own is None else own(self, *args, **options)

    def biased(self, bias: Tensor | None) -> Tensor | None:
        """A bias whose share of the relevance can be read."""
        if bias is None:
            return None
        self.biases.append(bias.detach().requires_grad_())
        return self.biases[-1]

    def _summed(self, one: Any, other: Any) -> tuple[Any, Any]:
        """The terms of a sum; one that does not depend on the input is a bias."""
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            return one, other
        if one.requires_grad == other.requires_grad or not one.is_floating_point():
            return one, other
        return (one, self.biased(other)) if one.requires_grad else (self.biased(one), other)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`F.linear`."""
        return F.linear(x, weight, self.biased(bias) if x.requires_grad else bias)

    def addmm(self, bias: Tensor, x: Tensor, weight: Tensor, **options: Any) -> Tensor:
        """`torch.addmm`, which GPT-2's linear maps are."""
        own = bias if not x.requires_grad or bias.requires_grad else self.biased(bias)
        assert own is not None
        return torch.addmm(own, x, weight, **options)

    def layer_norm(
        self,
        x: Tensor,
        shape: Any,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *rest: Any,
    ) -> Tensor:
        """`F.layer_norm` with a constant scale."""
        over = tuple(range(-len(shape), 0))
        centred = x - x.mean(over, keepdim=True)
        scale = (centred.detach().pow(2).mean(over, keepdim=True) + eps).rsqrt()
        return self._affine(x, centred * scale, weight, bias)

    def rms_norm(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        """`F.rms_norm` with a constant scale."""
        over = tuple(range(-len(shape), 0))
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        scale = (x.detach().pow(2).mean(over, keepdim=True) + eps).rsqrt()
        return self._affine(x, x * scale, weight, None)

    def _affine(self, x: Tensor, y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        y = y if weight is None else y * weight
        if bias is None:
            return y
        own = self.biased(bias) if x.requires_grad else bias
        assert own is not None
        return y + own

    def normalize(
        self, x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None
    ) -> Tensor:
        """`F.normalize` with a constant length."""
        return x / x.detach().norm(p, dim, keepdim=True).clamp_min(eps)


_OWN: dict[Any, Callable[..., Any]] = {
    F.linear: RelevanceRules.linear,
    torch.addmm: RelevanceRules.addmm,
    F.layer_norm: RelevanceRules.layer_norm,
    torch.layer_norm: RelevanceRules.layer_norm,
    F.rms_norm: RelevanceRules.rms_norm,
    F.normalize: RelevanceRules.normalize,
}


def like_a_factor(x: Tensor, y: Tensor) -> Tensor:
    """The values of y, differentiated as x times the constant y / x."""
    at, eps = x.detach(), EPS.get(x.dtype, 1e-6)
    return _Scaled.apply(x, y.detach() / (at + torch.where(at < 0, -eps, eps)), y.detach())


def halved(x: Tensor) -> Tensor:
    """The same values with half of the gradient."""
    return _Scaled.apply(x, torch.full_like(x.detach(), 0.5), x.detach())


class _Scaled(torch.autograd.Function):
    """Given values, and the gradient of x times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad * ctx.saved_tensors[0], None, None
