"""How a module of each library is run: pixels to its last layer, pixels to class logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.towers.vision.tap_hooks import Reached
from mmlens.values.errors import CapabilityError

LAST = "last_hidden_state"
"""The feature layer of an encoder that is run completely."""

Pixels4 = Float[Tensor, "batch 3 h w"]


def values(module: Any, kind: str, x: Pixels4) -> Any:
    """The output of the encoder or its feature layer, with prefix tokens, maps unflattened."""
    try:
        if kind == "hf":
            out = module(**hf_inputs(module, x), **_in_order(module, x))
            return out if isinstance(out, Tensor) else out.last_hidden_state
        if kind == "timm":
            return module.forward_features(x)
        return _open_clip_tokens(module, x)
    except Reached as reached:
        return reached.features


def hf_inputs(module: Any, x: Pixels4) -> dict[str, Tensor]:
    """Pixels as the forward pass of a transformers model takes them.

    Siglip2 takes them cut into patches, with a mask and the grid of each picture; Florence-2 under
    another name.

    Raises:
        CapabilityError: it asks for something that pixels don't say.
    """
    if "spatial_shapes" in _required(module):
        side = module.config.patch_size
        patches = x.unfold(2, side, side).unfold(3, side, side)  # [batch, 3, row, col, y, x]
        rows, cols = patches.shape[2:4]
        patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": torch.ones(
                patches.shape[:2], dtype=torch.long, device=x.device
            ),
            "spatial_shapes": torch.tensor([[rows, cols]], device=x.device).expand(len(x), -1),
        }
    names = [name for name in _required(module) if name != "pixel_values"]
    if len(names) > 1:
        raise CapabilityError(
            f"{type(module).__name__} asks for {' and '.join(names)}, which its own processor"
            " makes, and mmlens runs an encoder on pixels alone: give one whose forward pass takes"
            " nothing but pixel_values."
        )
    return {names[0] if names else "pixel_values": x}


def _required(module: Any) -> list[str]:
    """The arguments without which a module can't be run."""
    empty, several = inspect.Parameter.empty, inspect.Parameter.VAR_KEYWORD
    arguments = inspect.signature(module.forward).parameters.values()
    plain = [one for one in arguments if one.kind is not several]
    return [one.name for one in plain if one.default is empty and not one.name.startswith("args")]


def logits(
    classifier: Any, kind: str, x: Pixels4, features: Callable[[Tensor], Tensor] | None = None
) -> Float[Tensor, "batch class"]:
    """Class logits of a whole classifier.

    Args:
        features: a function applied to a timm model's features before its head reads them.
    """
    if kind == "hf":
        return classifier(pixel_values=x).logits
    if features is None:
        return classifier(x)
    return classifier.forward_head(features(classifier.forward_features(x)))


def flat(values: Tensor, channels_last: bool) -> Float[Tensor, "batch pos d_vision"]:
    """Tokens as they are, the cells of a map in reading order."""
    if values.dim() == 3:
        return values
    return values.flatten(1, 2) if channels_last else values.flatten(2).transpose(1, 2)


def unflat(tokens: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """The inverse of `flat`, for values of this shape."""
    if len(shape) == 3 or channels_last:
        return tokens.reshape(shape)
    return tokens.transpose(1, 2).reshape(shape)


def without_pooler(cls: type) -> dict[str, bool]:
    """The option that leaves out a transformers model's pooler, where that is optional."""
    arguments = inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}


def _in_order(module: Any, x: Tensor) -> dict[str, Tensor]:
    """For ViTMAE, which orders patches by random noise unless it is given: sorted noise."""
    if getattr(getattr(module, "config", None), "model_type", "") != "vit_mae":
        return {}
    n = module.embeddings.patch_embeddings.num_patches
    return {"noise": torch.arange(n, device=x.device).float().expand(len(x), -1)}


def _open_clip_tokens(visual: Any, x: Tensor) -> Tensor:
    """The output of `output_tokens=True` with CLS; layer4 of a ModifiedResNet, as in LiMBeR."""
    if hasattr(visual, "layer4"):
        x = visual.stem(x)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
        return x
    x = visual.transformer(visual._embeds(x))
    if visual.attn_pool is None and not visual.final_ln_after_pool:
        x = visual.ln_post(x)
    return x
