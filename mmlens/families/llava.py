"""LLaVA 1.5: one crop, every patch of it a position.

Haotian Liu et al., Improved Baselines with Visual Instruction Tuning, 2023. The projector reads the
layer of the encoder that `vision_feature_layer` names, without the class token.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image

from mmlens.checkpoints.llava_parts import feature_layer_of
from mmlens.families.native import Eyes, native
from mmlens.families.pixtral import pixtral
from mmlens.model.image_reader import ImageReader
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.wrap import wrap_vision


class ProcessedReader(ImageReader):
    """One crop whose pixels the checkpoint's own image processor makes, to the last grey level."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        made = self.images(images=[picture], return_tensors="pt")["pixel_values"]
        return list(made.flatten(0, -4))


@native("llava", "LlavaForConditionalGeneration", "llava-hf/llava-1.5-7b-hf")
def llava(model: Any, processor: Any) -> Eyes:
    """The encoder at its feature layer, and the projector; with Pixtral's encoder as that reads."""
    if model.config.vision_config.model_type == "pixtral":
        return pixtral(model, processor)
    words = counted(processor, model.config)
    vision = at_feature_layer(model, words.image_processor)
    reader = ProcessedReader(words.image_processor)
    return Eyes(vision, model.model.multi_modal_projector, reader, words, words.image_token)


def at_feature_layer(model: Any, recipe: Any) -> HookedVision:
    """The encoder up to the layer that the projector reads.

    Args:
        recipe: of one crop, as `wrap_vision` takes it.
    """
    vision = wrap_vision(model.model.vision_tower, recipe)
    return vision.at(feature_layer_of(vision, model.config))


def counted(processor: Any, config: Any) -> Any:
    """The processor with the token counts of the model's config; some checkpoints lack them."""
    out = copy.copy(processor)
    kind = config.vision_config.model_type
    out.patch_size = config.vision_config.patch_size
    out.vision_feature_select_strategy = config.vision_feature_select_strategy
    out.num_additional_image_tokens = int(
        "clip" in kind and "siglip" not in kind
    )  # its class token
    return out
