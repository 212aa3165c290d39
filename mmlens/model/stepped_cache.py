"""Activations of a diffusion model kept at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.model.activation_cache import caching_hooks

if TYPE_CHECKING:
    from mmlens.model.hooked_diffusion import HookedDiffusion


def stepped_cache(
    model: HookedDiffusion, input: Any, names_filter: Any, device: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """See `HookedDiffusion.run_with_cache`."""
    kept: dict[str, list[Tensor]] = {}
    last, hooks, _ = caching_hooks(model, names_filter, device=device)

    def keep(tensor: Tensor, hook: Any, one: Any) -> None:
        one(tensor, hook)
        kept.setdefault(hook.name, []).append(last[hook.name])

    every = [(name, lambda tensor, hook, one=one: keep(tensor, hook, one)) for name, one in hooks]
    with model.hooks(every):
        out = model(input)
    return out, {name: torch.stack(values) for name, values in kept.items()}
