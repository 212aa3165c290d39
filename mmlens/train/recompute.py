"""Less memory for more time: a language model's layers are computed again in the backward pass.

Only the input of each layer is kept (Chen et al., arXiv 1604.06174), the way LiMBeR's GPT-J was
trained. transformers asks for train mode to do so; here the layers alone are switched, with their
own dropout at 0, so that everything inside them stays in eval mode and the numbers are the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from mmlens.values.errors import CapabilityError


def recompute(lm: nn.Module) -> None:
    """Switch a private copy of a Hugging Face causal LM (`share_weights`) to recomputing."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [m for m in lm.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise CapabilityError(
            f"{type(lm).__name__} has no layers that transformers can recompute: leave out"
            " recompute=True and use a smaller batch_size with accumulate."
        )
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        layer.training = True  # the layer's own flag, not that of the modules in it
        for name, value in vars(layer).items():
            if "drop" in name and isinstance(value, float):
                setattr(layer, name, 0.0)
