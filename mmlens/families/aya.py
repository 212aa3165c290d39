"""Aya Vision and Command A Vision: tiles row by row, a thumbnail last, 2 x 2 patches to a position.

Saurabh Dash et al., Aya Vision: Advancing the Frontier of Multilingual Multimodality, 2025; Team
Cohere, Command A, 2025. The tiles are InternVL's; the projector shuffles squares of patches itself.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from mmlens.families.internvl import TilesThenThumbnail
from mmlens.families.llava import at_feature_layer
from mmlens.families.native import Eyes, native, square
from mmlens.towers.vision.wrap import wrap_vision


class InARow(nn.Module):
    """A projector that gives a map of positions, with the positions in a row.

    Args:
        projector: features [crop, patch, d_vision] to vectors [crop, row, col, d_model].
    """

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [crop, patch, d_vision] to vectors [crop, pos, d_model]."""
        return self.projector(features).flatten(1, 2)


@native("aya_vision", "AyaVisionForConditionalGeneration", "CohereForAI/aya-vision-8b")
def aya_vision(model: Any, processor: Any) -> Eyes:
    """The encoder at its feature layer, and the projector."""
    config, words = model.config, copy.copy(processor)
    side, scale = config.vision_config.image_size, config.downsample_factor
    words.img_size, words.patch_size = side, config.vision_config.patch_size * scale
    vision = at_feature_layer(model, square(words.image_processor, side))
    reader = TilesThenThumbnail(words.image_processor, scale)
    projection = InARow(model.model.multi_modal_projector)
    return Eyes(vision, projection, reader, words, words.image_token)


@native(
    "cohere2_vision",
    "Cohere2VisionForConditionalGeneration",
    "CohereLabs/command-a-vision-07-2025",
)
def cohere2_vision(model: Any, processor: Any) -> Eyes:
    """The encoder, and the projector."""
    from transformers.models.cohere2_vision import image_processing_cohere2_vision as own

    config, words = model.config, copy.copy(processor)
    side, scale = config.vision_config.image_size, config.downsample_factor
    vision = wrap_vision(model.model.vision_tower, square(words.image_processor, side))
    words.patch_size = vision.grid[0] // scale  # positions along an edge, whatever its name says
    reader = TilesThenThumbnail(words.image_processor, scale, own.get_optimal_tiled_canvas)
    projection = InARow(model.model.multi_modal_projector)
    return Eyes(vision, projection, reader, words, words.image_token)
