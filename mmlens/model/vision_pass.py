"""The vision tower of any model, run alone on pixels with the model's edits and hooks.

A bridge, a dual encoder and an encoder alone hold the same tower; what is asked of its units needs
neither words nor a readout. The pass ends at the last point that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmlens.model import hooking
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.turns import turn
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

VISION = "vision"


class _Enough(Exception):
    """The last point has been read."""


def vision_pass(
    model: HookedModel, pixels: Float[Tensor, "picture 3 h w"], names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """The activations at these hook points, Float[picture, *axes], with their graph.

    Args:
        names: of the vision tower; they are `model.hook_dict`'s.
    """
    tower: Any = model.towers[VISION]
    order, kept = list(tower.points), {}
    last = max(names, key=order.index)

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = tensor
        if hook.name == last:
            raise _Enough

    grey = [Prompt(Image.new("RGB", (8, 8)))] * len(pixels)  # for edits that patches address
    with model.hooks([(name, keep) for name in dict.fromkeys(names)]):
        hooks = model._hooks_now()
        attached = hooking.attached(model, hooks, grey)
        with suppress(_Enough), ordinary(), turn(*model._shared()), attached:
            tower(pixels)
    return kept
