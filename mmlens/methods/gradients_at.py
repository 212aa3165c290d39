"""Values at hook points and the gradient of what is explained there: one run, back and forth.

What maps of relevance are made of: attention patterns and their gradients (`chefer`), activations
and theirs (`grad_cam`), inputs under changed rules of the backward pass (`lrp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import readouts
from mmlens.model.targets import Target, finite
from mmlens.runtime.backward import seed, wide

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@dataclass(frozen=True)
class At:
    """One hook point in one run.

    Attributes:
        value: what it held, with its batch axis.
        grad: dy/dvalue, at least float32; None where y does not depend on it.
    """

    value: torch.Tensor
    grad: torch.Tensor | None


def gradients_at(
    model: HookedModel,
    reading: Any,
    target: Target,
    names: Sequence[str],
    beside: Sequence[str] = (),
) -> tuple[dict[str, At], float]:
    """What is explained, y, and by hook point the value and the gradient of y: one run.

    Args:
        reading, target: what `model.aim` returned.
        names: hook points whose gradients are asked for; a graph begins at the first of them.
        beside: hook points whose values alone are kept.

    Raises:
        NumericsError: NaN or infinity in the answer or in a gradient.
    """
    kept: dict[str, torch.Tensor] = {}

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        tensor = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        kept[hook.name] = tensor
        return tensor

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = tensor

    hooks = [*((name, tap) for name in names), *((name, keep) for name in beside)]
    with torch.set_grad_enabled(bool(names)), model.hooks(fwd_hooks=hooks):
        row = readouts.answers(model, reading, [target])[0]
        finite(row.detach(), f"the answer of {model.name!r}")
    grads: list[torch.Tensor | None] = [None] * len(names)
    if names and row.requires_grad:
        out, power = seed(row, target.number)
        found = torch.autograd.grad(
            row, [kept[name] for name in names], grad_outputs=out, allow_unused=True
        )
        grads = [None if one is None else wide(one) / power for one in found]
    for name, grad in zip(names, grads, strict=True):
        if grad is not None:
            finite(grad, f"the gradient at {name!r}")
    slopes = dict(zip(names, grads, strict=True))
    at = {name: At(wide(value.detach()), slopes.get(name)) for name, value in kept.items()}
    with torch.no_grad():
        return at, float(target.number(wide(row.detach())))
