"""How a module of each library is run: pixels to its last layer, pixels to class logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.towers.vision.tap_hooks import Reached

LAST = "last_hidden_state"
"""The feature layer of an encoder that is run completely."""

Pixels4 = Float[Tensor, "batch 3 h w"]


def values(module: Any, kind: str, x: Pixels4) -> Any:
    """The output of the encoder or its feature layer, with prefix tokens, maps unflattened."""
    try:
        if kind == "hf":
            return module(pixel_values=x, **_in_order(module, x)).last_hidden_state
        if kind == "timm":
            return module.forward_features(x)
        return _open_clip_tokens(module, x)
    except Reached as reached:
        return reached.features


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
