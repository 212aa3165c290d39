"""InternVL: tiles row by row, a thumbnail last, 2 x 2 patches shuffled into one position.

Zhe Chen et al., InternVL: Scaling up Vision Foundation Models, 2024. The picture is stretched to
the arrangement of tiles whose shape is nearest to its own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families.llava import at_feature_layer
from mmlens.families.native import Eyes, native, square
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout, tiles, whole
from mmlens.towers.vision.wrap import wrap_vision


class TilesThenThumbnail(LaidOutReader):
    """Tiles over the whole picture, and a thumbnail where there are several.

    Args:
        scale: how many patches become one position, along each edge.
        canvas: the class's own choice of columns and rows of tiles; None: that of InternVL.
    """

    def __init__(self, images: Any, scale: int, canvas: Any = None) -> None:
        super().__init__(images, crop_to_patches=True)
        self.scale, self._canvas = scale, canvas or _canvas

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        return vision.grid[0] // self.scale, vision.grid[1] // self.scale

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        images, box, grid = self.images, whole(width, height), self.grid(vision)
        least, most = images.min_patches, images.max_patches
        cols, rows = self._canvas((height, width), vision.image_size, least, most)
        if rows * cols == 1:
            return PictureLayout.in_turn([Crop("picture", box, grid)])
        return PictureLayout.in_turn([*tiles(box, rows, cols, grid), Crop("thumbnail", box, grid)])


def _canvas(*sizes: Any) -> tuple[int, int]:
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    return get_optimal_tiled_canvas(*sizes)


class Shuffled(nn.Module):
    """Squares of patches joined as the class does it, and projected."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.projector, self.ratio = model.multi_modal_projector, model.config.downsample_ratio
        self.shuffle = type(model).pixel_shuffle

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [crop, patch, d_vision] to vectors [crop, pos, d_model]."""
        side = round(features.shape[1] ** 0.5)
        squares = features.unflatten(1, (side, side))
        return self.projector(self.shuffle(self, squares, scale_factor=self.ratio).flatten(1, 2))


def internvl(model: Any, processor: Any) -> Eyes:
    """The encoder without its class token, and the shuffled projector."""
    config, words = model.config, copy.copy(processor)
    words.image_seq_length = config.image_seq_length
    images, side = words.image_processor, config.vision_config.image_size[0]
    last = config.vision_feature_layer == -1
    recipe = square(images, side)
    vision = (
        wrap_vision(model.model.vision_tower, recipe) if last else at_feature_layer(model, recipe)
    )
    reader = TilesThenThumbnail(images, round(1 / config.downsample_ratio))
    picture = getattr(words, "image_placeholder_token", words.image_token)
    return Eyes(vision, Shuffled(model.model), reader, words, picture)


native("internvl", "InternVLForConditionalGeneration", "OpenGVLab/InternVL3-1B-hf")(internvl)
native("qianfan_ocr", "QianfanOCRForConditionalGeneration", "baidu/Qianfan-OCR")(internvl)
