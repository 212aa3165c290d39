"""Idefics3 and SmolVLM: tiles row by row, the whole picture last, patches shuffled into positions.

Hugo Laurençon et al., Building and better understanding vision-language models, 2024; Andrés
Marafioti et al., SmolVLM, 2025. The picture is stretched to whole tiles. In each crop squares of
patches become one position (pixel shuffle), and each crop stands between words of its own, such as
<row_1_col_2>, which are labelled as the tokens that they are.
"""

from __future__ import annotations

import copy
from typing import Any

from PIL import Image

from mmlens.families.native import Eyes, native, square
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout, tiles, whole
from mmlens.towers.vision.wrap import from_hf


class TilesThenWhole(LaidOutReader):
    """Tiles over the whole picture, then the whole picture.

    Args:
        scale: how many patches become one position, along each edge.
    """

    def __init__(self, images: Any, scale: int) -> None:
        super().__init__(images)
        self.scale = scale
        self._tiles: dict[tuple[int, int], tuple[int, int]] = {}

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        return vision.grid[0] // self.scale, vision.grid[1] // self.scale

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        rows, cols = self._cut(width, height)
        box, grid = whole(width, height), self.grid(vision)
        if not rows:
            return PictureLayout.in_turn([Crop("picture", box, grid)])
        return PictureLayout.in_turn([*tiles(box, rows, cols, grid), Crop("thumbnail", box, grid)])

    def _cut(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles of a picture of this size; (0, 0) where it is not cut."""
        if (width, height) not in self._tiles:
            blank = Image.new("RGB", (width, height))
            read = self.images(images=[[blank]], return_tensors="pt", return_row_col_info=True)
            self._tiles[width, height] = read["rows"][0][0], read["cols"][0][0]
        return self._tiles[width, height]


def idefics3(model: Any, processor: Any) -> Eyes:
    """The encoder, and the connector that shuffles and projects."""
    config, words = model.config, copy.copy(processor)
    side = config.vision_config.image_size
    words.image_seq_len = (side // config.vision_config.patch_size // config.scale_factor) ** 2
    vision = from_hf(model.model.vision_model, square(words.image_processor, side))
    reader = TilesThenWhole(words.image_processor, config.scale_factor)
    return Eyes(vision, model.model.connector, reader, words, words.image_token)


native("idefics3", "Idefics3ForConditionalGeneration", "HuggingFaceM4/Idefics3-8B-Llama3")(idefics3)
native("smolvlm", "SmolVLMForConditionalGeneration", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct")(
    idefics3
)
