"""Pictures that are added again behind several layers of the language model: DeepStack.

Lingchen Meng et al., DeepStack: Deeply Stacking Visual Tokens is Surprisingly Simple and Effective
for LMMs, 2024; Qwen3-VL. What the picture's embedding does not hold is added to the residual stream
at its positions, behind layer 0, 1, ...:

    resid_post[L]  =  resid_mid[L] + mlp_out[L] + deepstack[L]

So `resid_post` of a layer is what enters the next, as everywhere else, and what is added has a hook
point of its own, `blocks.{L}.hook_deepstack`, which is zero at words. The vectors belong to the
prompt (`SoftPrompt.deep`); a hook behind each layer adds those of the positions it is computing,
under Hugging Face's own `generate` as well.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmlens.runtime.run import current
from mmlens.towers.attention import warm
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel


class Deepstack:
    """The additions of one language model.

    Args:
        n: how many layers, from the first on, have one.

    Attributes:
        points: their hook points by name.
    """

    def __init__(self, n: int) -> None:
        from transformer_lens.hook_points import HookPoint

        self.n = n
        self.points: dict[str, Any] = {}
        for layer in range(n):
            name = SITES["deepstack"].at(layer)
            self.points[name] = HookPoint()
            self.points[name].name = name

    def behind(self, layer: int, module: nn.Module, args: Any, out: Any) -> Any:
        """The forward hook of a layer of the model: its output with what is added."""
        point = self.points[SITES["deepstack"].at(layer)]
        hidden = out[0] if isinstance(out, tuple) else out
        found = _now(layer, hidden)
        if found is None and not warm(point):
            return None
        hidden = hidden + point(torch.zeros_like(hidden) if found is None else found)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden


def _now(layer: int, hidden: Tensor) -> Tensor | None:
    """What the prompt adds at the positions that are computed: [row, pos, d_model], or None."""
    run = current()
    if run is None or run.soft.deep is None or run.start >= run.soft.ids.shape[1]:
        return None
    width = hidden.shape[1]
    deep = run.soft.deep[:, run.start : run.start + width, layer].to(hidden)
    deep = deep.repeat_interleave(hidden.shape[0] // len(run.soft), 0)
    return nn.functional.pad(deep, (0, 0, 0, width - deep.shape[1]))


def open_deepstack(lm: LanguageModel) -> Deepstack | None:
    """The additions of a bridge made here; None where its class has none."""
    eyes = getattr(lm.root.original_model.config, "vision_config", None)
    n = len(getattr(eyes, "deepstack_visual_indexes", None) or ())
    if not n:
        return None
    found = Deepstack(n)
    for layer in range(n):
        block = lm.root.blocks[layer].original_component
        block.register_forward_hook(partial(found.behind, layer))
    return found
