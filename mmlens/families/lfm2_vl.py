"""LFM2-VL: pictures of any size as a list of patches, 2 x 2 of them shuffled into one position.

Liquid AI, LFM2 Technical Report, 2025. A small picture keeps its shape and is read whole. A large
one is stretched to whole tiles, which are read row by row, and behind them comes a thumbnail of the
picture, which keeps its shape and so has another size than a tile.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from mmlens.families.gemma4 import ListedPatches
from mmlens.families.native import Eyes, native, square
from mmlens.families.qwen_vl import MEASURED
from mmlens.model.laid_out import Crop, PictureLayout, tiles, whole
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.labels import Label, Patch
from mmlens.values.sites import Site

Sizes = list[tuple[int, int]]
"""Rows and columns of patches of each crop."""


class TilesAndThumbnail(ListedPatches):
    """A picture read whole, or in tiles and then whole."""

    def __init__(self, images: Any, merge: int, patch: int) -> None:
        super().__init__(images, merge, patch)
        self.one_grid = not images.do_image_splitting
        self._cuts: dict[tuple[int, int], tuple[tuple[int, int], Sizes]] = {}

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        (rows, cols), sizes = self._cut(width, height)
        box = whole(width, height)
        grids = [(high // self.merge, wide // self.merge) for high, wide in sizes]
        if rows * cols == 1:
            return PictureLayout.in_turn([Crop("picture", box, grids[0])])
        rest = [Crop("thumbnail", box, grid) for grid in grids[rows * cols :]]
        return PictureLayout.in_turn([*tiles(box, rows, cols, grids[0]), *rest])

    def rows(
        self, tower: Any, site: Site, layer: int | None, picture: Image.Image, image: int, crop: int
    ) -> tuple[Label, ...]:
        high, wide = self._cut(*picture.size)[1][crop]
        edge = self.merge if tower.name == "projection" else 1
        places = [(row, col) for row in range(high // edge) for col in range(wide // edge)]
        return tuple(Patch(row, col, image, crop) for row, col in places)

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        made, p = self._made(picture), self.patch
        found = []
        for listed, (rows, cols) in zip(
            made["pixel_values"], self._cut(*picture.size)[1], strict=True
        ):
            patches = listed[: rows * cols].view(rows, cols, p, p, 3)
            found.append(patches.permute(4, 0, 2, 1, 3).reshape(3, rows * p, cols * p))
        return found

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> torch.Tensor:
        grid = [edge // self.patch for edge in size]
        return projection(features.unflatten(1, grid)).flatten(1, 2)

    def vectors(self, projected: Any, labels: Any, picture: Image.Image) -> torch.Tensor:
        return torch.cat(list(projected))  # crop after crop, as they are labelled

    def _made(self, picture: Image.Image) -> Any:
        return self.images(images=[picture], return_tensors="pt", return_row_col_info=True)

    def _measured(self, blank: Image.Image) -> tuple[int, int]:
        return self._cut(*blank.size)[1][0]

    def _cut(self, width: int, height: int) -> tuple[tuple[int, int], Sizes]:
        """Rows and columns of tiles of a picture, and the size of each crop in patches."""
        if (width, height) not in self._cuts:
            made = self._made(Image.new("RGB", (width, height)))
            number = int(made["image_rows"][0]), int(made["image_cols"][0])
            sizes = [(rows, cols) for rows, cols in made["spatial_shapes"].tolist()]
            self._cuts[width, height] = number, sizes
        return self._cuts[width, height]


@native("lfm2_vl", "Lfm2VlForConditionalGeneration", "LiquidAI/LFM2-VL-1.6B")
def lfm2_vl(model: Any, processor: Any) -> Eyes:
    """The encoder, and the projector that shuffles."""
    tower, images = model.model.vision_tower, processor.image_processor
    merge, patch = model.config.downsample_factor, model.config.vision_config.patch_size
    tower.step = merge * patch  # of a copy that is ours
    size = [edge * tower.step for edge in MEASURED]
    vision = from_hf(tower, {**square(images, 1), "image_size": size})
    projection, reader = model.model.multi_modal_projector, TilesAndThumbnail(images, merge, patch)
    return Eyes(vision, projection, reader, processor, processor.image_token)
