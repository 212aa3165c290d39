"""LLaVA 1.5 and ViP-LLaVA: one crop, every patch of it a position.

Haotian Liu et al., Improved Baselines with Visual Instruction Tuning, 2023; Mu Cai et al., Making
Large Multimodal Models Understand Arbitrary Visual Prompts, 2024. The projector reads the layer of
the encoder that `vision_feature_layer` names, or several side by side, without the class token.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.checkpoints.llava_parts import feature_layer_of
from mmlens.families.native import Eyes, native
from mmlens.families.pixtral import pixtral
from mmlens.model.image_reader import ImageReader
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.wrap import from_hf, wrap_vision


class ProcessedReader(ImageReader):
    """One crop whose pixels the checkpoint's own image processor makes, to the last grey level."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        made = self.images(images=[picture], return_tensors="pt")["pixel_values"]
        return list(made.flatten(0, -4))


class SideBySide(nn.Module):
    """An encoder that gives several of its layers, side by side.

    Args:
        tower: the encoder.
        layers: numbers of its hidden states; 0 enters the first block.
    """

    def __init__(self, tower: Any, layers: list[int]) -> None:
        super().__init__()
        self.tower, self.config, self.layers = tower, tower.config, layers
        inside = getattr(tower, "vision_model", tower)  # of older transformers
        for part in ("embeddings", "pre_layrnorm", "encoder"):  # where mmlens looks for them
            if hasattr(inside, part):
                object.__setattr__(self, part, getattr(inside, part))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels [crop, 3, h, w] to features [crop, pos, layer * d_vision]."""
        states = self.tower(pixel_values, output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in self.layers], -1)


def llava(model: Any, processor: Any) -> Eyes:
    """The encoder at its feature layer, and the projector; with Pixtral's encoder as that reads."""
    if model.config.vision_config.model_type == "pixtral":
        return pixtral(model, processor)
    words = counted(processor, model.config)
    vision = at_feature_layer(model, words.image_processor)
    reader = ProcessedReader(words.image_processor)
    return Eyes(vision, model.model.multi_modal_projector, reader, words, words.image_token)


native("llava", "LlavaForConditionalGeneration", "llava-hf/llava-1.5-7b-hf")(llava)
native("vipllava", "VipLlavaForConditionalGeneration", "llava-hf/vip-llava-7b-hf")(llava)


def at_feature_layer(model: Any, recipe: Any) -> HookedVision:
    """The encoder up to the layer that the projector reads, or the layers.

    Args:
        recipe: of one crop, as `wrap_vision` takes it.
    """
    layers = model.config.vision_feature_layer
    if isinstance(layers, (list, tuple)) and len(layers) > 1:
        return from_hf(SideBySide(model.model.vision_tower, list(layers)), recipe)
    vision = wrap_vision(model.model.vision_tower, recipe)
    return vision.at(feature_layer_of(vision, model.config))


def counted(processor: Any, config: Any) -> Any:
    """The processor with the token counts of the model's config; some checkpoints lack them."""
    out = copy.copy(processor)
    kind = config.vision_config.model_type
    out.patch_size = config.vision_config.patch_size
    strategy = getattr(config, "vision_feature_select_strategy", "default")  # ViP-LLaVA's only one
    out.vision_feature_select_strategy = strategy
    out.num_additional_image_tokens = int(
        "clip" in kind and "siglip" not in kind
    )  # its class token
    return out
