"""A whole vision-language model given as a part: it is split by its configuration.

    from_parts(vision=llava, lm=llava, tokenizer=words)        # encoder, projector and LM of one

LLaVA's projector was trained on one layer of the encoder (`vision_feature_layer`, mostly the last
but one) without or with the class token (`vision_feature_select_strategy`). Both are read here and
compared with the encoder's own forward pass. Models whose projection is more than a map of single
patches are refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmlens.runtime.autograd import ordinary
from mmlens.towers.language.inside import whole
from mmlens.towers.vision.calls import LAST
from mmlens.towers.vision.wrap import HookedVision, wrap_vision
from mmlens.values.errors import CapabilityError, CheckpointError, reason


def is_whole(part: Any) -> bool:
    """Whether a part is a whole vision-language model."""
    if not isinstance(part, nn.Module) or not whole(getattr(part, "config", None)):
        return False
    return not (hasattr(part, "vision_model") and hasattr(part, "text_model"))  # CLIP, SigLIP


def apart(
    vision: Any, projection: Any, lm: Any, feature_layer: Any
) -> tuple[Any, Any, Any, str | None]:
    """The parts of `from_parts`, with whole models split into theirs.

    Raises:
        CapabilityError: a whole model of a kind that has no projection of single patches.
        CheckpointError: a projector of transformers without a feature layer.
    """
    config = feature_layer if whole(feature_layer) else None
    feature_layer = None if config is not None else feature_layer
    own = next((p for p in (vision, projection, lm) if is_whole(p)), None)
    if own is not None:
        _check_llava(own)
    if is_whole(vision):
        config = config or vision.config
        projection = _inner(vision, "multi_modal_projector") if projection is None else projection
        vision = _inner(vision, "vision_tower")
    if is_whole(projection):
        config = config or projection.config
        projection = _inner(projection, "multi_modal_projector")
    if is_whole(lm):
        lm = _language_of(lm)
    if feature_layer is None and config is not None:
        vision = vision if isinstance(vision, HookedVision) else wrap_vision(vision)
        feature_layer = feature_layer_of(vision, config)
    _check_projector(projection, vision, feature_layer)
    return vision, projection, lm, feature_layer


def refuse_whole(model: Any) -> None:
    """Refuse a whole model in place of an encoder.

    Raises:
        CapabilityError: it is one.
    """
    if is_whole(model):
        raise CapabilityError(
            f"A {type(model).__name__} is a whole vision-language model and no encoder: give its"
            " encoder, as in model.get_encoder('image'), or hand a LLaVA to"
            " from_parts(vision=model, lm=model)."
        )


def _check_llava(model: Any) -> None:
    name = type(model).__name__
    if getattr(model.config, "model_type", "") != "llava":
        raise CapabilityError(
            f"A {name} is a whole model, and mmlens takes only LLaVA's apart: give its encoder as"
            " vision=, its map of single patches as projection=, its language model as lm=, and"
            " what of the encoder is projected as feature_layer=."
        )


def _check_projector(projection: Any, vision: Any, feature_layer: str | None) -> None:
    """Refuse a projector of a whole model without its feature layer, which it does not record."""
    home = type(projection).__module__
    chosen = isinstance(vision, HookedVision) and vision.feature_layer != LAST
    if feature_layer is None and not chosen and home.startswith("transformers.models."):
        raise CheckpointError(
            f"A {type(projection).__name__} was trained on the layer of the encoder that its"
            " model's config names (vision_feature_layer): hand in the whole model as vision=, or"
            " write feature_layer=model.config, or a hook point such as"
            " feature_layer='blocks.22.hook_resid_post' (layer -2 of 24)."
        )


def _inner(model: Any, name: str) -> Any:
    """A part of a LLaVA, with or without its language-model head."""
    for holder in (model, getattr(model, "model", None)):
        if isinstance(getattr(holder, name, None), nn.Module):
            return getattr(holder, name)
    raise CapabilityError(f"This {type(model).__name__} has no {name}.")


def _language_of(model: Any) -> Any:
    """The causal language model inside: its decoder and head, not copied."""
    from transformers import AutoModelForCausalLM

    head = model.get_output_embeddings()
    if head is None:
        raise CapabilityError(
            f"A {type(model).__name__} has no head that gives logits: load it as a"
            " LlavaForConditionalGeneration."
        )
    with torch.device("meta"):
        lm: Any = AutoModelForCausalLM.from_config(model.config.text_config)
    setattr(lm, lm.base_model_prefix, _inner(model, "language_model"))
    lm.set_output_embeddings(head)
    lm.config.tie_word_embeddings = head.weight is lm.get_input_embeddings().weight
    return lm.eval()


def feature_layer_of(vision: HookedVision, config: Any) -> str:
    """The hook point of a configuration's feature layer, verified on a picture."""
    index = getattr(config, "vision_feature_layer", None)
    index = index[0] if isinstance(index, (list, tuple)) and len(index) == 1 else index
    strategy = getattr(config, "vision_feature_select_strategy", "default")
    told = f"vision_feature_layer={index!r}, vision_feature_select_strategy={strategy!r}"
    if not isinstance(index, int):
        raise CapabilityError(
            f"This model projects several layers of its encoder side by side ({told}); a bridge"
            " reads one: give a projection that was trained on one, with feature_layer=."
        )
    number = index if index >= 0 else vision.n_layers + 1 + index
    names = [LAST] if number == vision.n_layers else []
    names += [f"blocks.{number - 1}.hook_resid_post"] if number else ["blocks.0.hook_resid_pre"]
    rows, cols = vision.image_size
    picture = torch.linspace(-7, 7, 3 * rows * cols).sin().reshape(1, 3, rows, cols)
    picture = picture.to(vision.device, vision.dtype)
    with ordinary(), torch.no_grad():
        try:
            states = vision.module(pixel_values=picture, output_hidden_states=True).hidden_states
            theirs = states[index][:, 1 if strategy == "default" else 0 :]
        except (TypeError, IndexError, AttributeError) as error:
            raise CapabilityError(
                f"{type(vision.module).__name__} has no such layer ({told}): {reason(error)}"
            ) from error
        for name in names:
            ours = vision.at(name)(picture)
            near = 1e-3 if vision.dtype in (torch.float32, torch.float64) else 5e-2
            if ours.shape == theirs.shape and bool(
                (ours - theirs).abs().max() <= near * (1 + theirs.abs().max())
            ):
                return name
    raise CapabilityError(
        f"This model projects {theirs.shape[1]} positions of its encoder ({told}), and a bridge"
        f" reads its {vision.grid[0]} x {vision.grid[1]} patches without a class token: give a"
        " projection that was trained on these, with feature_layer=."
    )
