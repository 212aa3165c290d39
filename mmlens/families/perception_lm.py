"""PerceptionLM: a thumbnail, then tiles over the whole picture; 2 x 2 patches averaged to one.

Jang Hyun Cho et al., PerceptionLM: Open-Access Data and Models for Detailed Visual Understanding,
2025 (arXiv:2504.13180). The encoder is one of timm's (Perception Encoder) under transformers'
wrapper. The picture is stretched to the arrangement of tiles that the image processor chooses; of
smaller checkpoints it is one crop.
"""

from __future__ import annotations

import copy
from typing import Any

from PIL import Image

from mmlens.families.native import Eyes, native, square
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout, tiles, whole
from mmlens.towers.vision.wrap import wrap_vision


class ThumbnailThenTiles(LaidOutReader):
    """A thumbnail and tiles, both of the whole picture; or one crop of it.

    Args:
        pooled: how many patches are averaged to one position, along each edge.
    """

    def __init__(self, images: Any, pooled: int) -> None:
        super().__init__(images)
        self.pooled = pooled

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        return vision.grid[0] // self.pooled, vision.grid[1] // self.pooled

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        images, box, grid = self.images, whole(width, height), self.grid(vision)
        if images.vision_input_type != "thumb+tile":
            return PictureLayout.in_turn([Crop("picture", box, grid)])
        fitted = images._fit_image_to_canvas(width, height, images.tile_size)
        cols, rows = fitted or images._find_closest_aspect_ratio(width, height, images.tile_size)
        return PictureLayout.in_turn([Crop("thumbnail", box, grid), *tiles(box, rows, cols, grid)])


@native("perception_lm", "PerceptionLMForConditionalGeneration", "facebook/Perception-LM-1B")
def perception_lm(model: Any, processor: Any) -> Eyes:
    """timm's encoder without its class token, and the projector that averages."""
    config, words = model.config, copy.copy(processor)
    words.pooling_ratio = config.projector_pooling_ratio
    images = words.image_processor
    vision = wrap_vision(model.model.vision_tower, square(images, images.tile_size))
    reader = ThumbnailThenTiles(images, config.projector_pooling_ratio)
    return Eyes(vision, model.model.multi_modal_projector, reader, words, words.image_token)
