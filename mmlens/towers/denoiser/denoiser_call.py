"""What stands around one call of a denoiser: it counts steps and routes what enters and leaves.

Diffusers' pipelines call their denoiser once a step. `DenoiserCall` takes the place of its
`forward`, as `OpenAttention` does in an attention module, and delegates to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmlens.runtime.denoising import Loop, loop_now

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

TEXT_INPUT = "encoder_hidden_states"


class DenoiserCall:
    """The forward of a denoiser, with its prompt and its noise through hook points.

    Args:
        points: "hook_prompt_embeds" and "hook_noise".

    Attributes:
        masked: whether the padding of a prompt was masked in the last call.
    """

    masked = False

    def __init__(self, module: nn.Module, points: Mapping[str, HookPoint]) -> None:
        self.plain, self.points = module.forward, points
        vars(module)["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        loop = loop_now()
        if loop is None:
            return self.plain(*args, **kwargs)
        loop.step += 1
        if not (loop.recompute and torch.is_grad_enabled()):
            return self._once(*args, **kwargs)
        again = _Again(self, loop, loop.step, copy_context())
        return checkpoint(again, *args, use_reentrant=False, **kwargs)

    def _once(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        self.masked = kwargs.get("encoder_attention_mask") is not None
        kwargs[TEXT_INPUT] = self.points["hook_prompt_embeds"](kwargs[TEXT_INPUT])
        noise, *rest = self.plain(*args, **kwargs)
        return (self.points["hook_noise"](noise), *rest)


class _Again:
    """One step, which may be computed again: in the backward pass, by a thread of torch's own."""

    def __init__(self, call: DenoiserCall, loop: Loop, step: int, context: Context) -> None:
        self.call, self.loop, self.step, self.context = call, loop, step, context

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.context.copy().run(self._run, *args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with self.loop.at(self.step):
            return self.call._once(*args, **kwargs)
