"""LLaVA-NeXT and LLaVA-OneVision: the whole picture squashed, then its tiles, a newline per row.

Haotian Liu et al., LLaVA-NeXT: Improved reasoning, OCR, and world knowledge, 2024; Bo Li et al.,
LLaVA-OneVision: Easy Visual Task Transfer, 2024. The picture is fitted into the best of several
resolutions, padded on both sides and cut into tiles. Of the tiles' patches, joined to one grid,
those that lie in the padding are left out, and a learned newline follows each row. OneVision scales
a grid of too many patches down, and reads several pictures of one prompt without tiles.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families.llava import at_feature_layer, counted
from mmlens.families.native import Eyes, native, square
from mmlens.model.laid_out import Box, Crop, LaidOutReader, PictureLayout, tiles, whole
from mmlens.values.labels import Label, Patch

Lines = list[list[tuple[int, int, int]]]
"""Rows of the joined grid of all tiles: (crop, row, col) of each patch."""


class AnyResolution(LaidOutReader):
    """The layout of LLaVA-NeXT.

    Args:
        config: of the model: its resolutions and the size of a tile.
        newline: the vector Float[d_model] behind every row of the tiles.
        most: how many tiles' worth of patches are read before the grid is scaled down, or None.
        single: whether only the picture of a prompt with one is cut into tiles.
    """

    def __init__(
        self, images: Any, config: Any, newline: torch.Tensor, most: int | None, single: bool
    ) -> None:
        super().__init__(images, {"newline": newline.detach()})
        self.pinpoints = [tuple(one) for one in config.image_grid_pinpoints]
        self.side, self.most, self.single = config.vision_config.image_size, most, single

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        base = Crop("thumbnail", whole(width, height), vision.grid)
        if self.single and of > 1:
            base = replace(base, name="picture")
            return PictureLayout((base,), (*base.places(0), "newline"), 1)
        region, rows, cols = self._fitted(width, height)
        crops = [base, *tiles(region, rows, cols, vision.grid)]
        lines = self._tiled(vision.grid, rows, cols, width, height)
        small = self._scaled(lines, vision.grid)
        read = len(crops)
        if small is not None:
            first, last = (
                crops[at].cell(row, col) for at, row, col in (lines[0][0], lines[-1][-1])
            )
            crops.append(Crop("tile", (*first[:2], *last[2:]), small))
            every = iter(crops[-1].places(read))
            lines = [[next(every) for _ in range(small[1])] for _ in range(small[0])]
        tiled = [place for line in lines for place in (*line, "newline")]
        return PictureLayout(tuple(crops), (*base.places(0), *tiled), read)

    def vectors(
        self, projected: torch.Tensor, labels: tuple[Label, ...], picture: Image.Image
    ) -> torch.Tensor:
        last = [one for one in labels if isinstance(one, Patch)][-1]
        if last.crop < len(projected):
            return super().vectors(projected, labels, picture)
        side = math.isqrt(projected.shape[1])
        _, rows, cols = self._fitted(*picture.size)
        lines = self._tiled((side, side), rows, cols, *picture.size)
        index = torch.tensor([[(at * side + r) * side + c for at, r, c in line] for line in lines])
        tiled = projected.flatten(0, 1)[index].movedim(-1, 0)[None]
        size = (last.row + 1, last.col + 1)
        small = nn.functional.interpolate(tiled, size, mode="bilinear")[0].movedim(0, -1)
        newline = self.markers["newline"].to(small).expand(len(small), 1, -1)
        return torch.cat([projected[0], torch.cat([small, newline], 1).flatten(0, 1)])

    def _fitted(self, width: int, height: int) -> tuple[Box, int, int]:
        """The box of the best resolution in the picture, and its rows and columns of tiles."""
        from transformers.image_processing_utils import select_best_resolution

        high, wide = select_best_resolution((height, width), self.pinpoints)
        scale = min(wide / width, high / height)
        left = (wide - min(math.ceil(width * scale), wide)) // 2 / scale
        top = (high - min(math.ceil(height * scale), high)) // 2 / scale
        box = -left, -top, wide / scale - left, high / scale - top
        return box, high // self.side, wide // self.side

    def _tiled(self, grid: tuple[int, int], rows: int, cols: int, width: int, height: int) -> Lines:
        """The patches of the tiles as one grid, without those in the padding."""
        high, wide = rows * grid[0], cols * grid[1]
        top = left = 0
        if width / height > wide / high:
            top = (high - int(round(height * (wide / width), 7))) // 2
        else:
            left = (wide - int(round(width * (high / height), 7))) // 2
        return [
            [
                (1 + row // grid[0] * cols + col // grid[1], row % grid[0], col % grid[1])
                for col in range(left, wide - left)
            ]
            for row in range(top, high - top)
        ]

    def _scaled(self, lines: Lines, grid: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns of the grid after it is scaled down; None where it is not."""
        if self.most is None:
            return None
        high, wide = len(lines), len(lines[0])
        ratio = math.sqrt(high * wide / (self.most * grid[0] ** 2))
        return (int(high // ratio), int(wide // ratio)) if ratio > 1.1 else None


def llava_next(model: Any, processor: Any) -> Eyes:
    """The encoder at its feature layer, the projector, and the layout of tiles and newlines."""
    words = counted(processor, model.config)
    newline = model.model.image_newline
    if hasattr(model.config.text_config, "logits_scaling"):  # of a Granite, in a copy of ours:
        model.config.text_config.logits_scaling = (
            1.0  # its own class divides, and this one does not
        )
    reader = AnyResolution(words.image_processor, model.config, newline, None, single=False)
    vision = at_feature_layer(model, square(words.image_processor, reader.side))
    return Eyes(vision, model.model.multi_modal_projector, reader, words, words.image_token)


native("llava_next", "LlavaNextForConditionalGeneration", "llava-hf/llava-v1.6-mistral-7b-hf")(
    llava_next
)
native(
    "llava_next_video",
    "LlavaNextVideoForConditionalGeneration",
    "llava-hf/LLaVA-NeXT-Video-7B-hf",
)(llava_next)


@native(
    "llava_onevision",
    "LlavaOnevisionForConditionalGeneration",
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
)
def llava_onevision(model: Any, processor: Any) -> Eyes:
    """As LLaVA-NeXT, with at most `vision_aspect_ratio` tiles' worth of patches."""
    words = counted(processor, model.config)
    words.num_image_tokens = math.prod(_grid(model.config.vision_config))
    words.vision_aspect_ratio = model.config.vision_aspect_ratio
    most = int(model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
    newline = model.model.image_newline
    reader = AnyResolution(words.image_processor, model.config, newline, most, single=True)
    vision = at_feature_layer(model, square(words.image_processor, reader.side))
    return Eyes(vision, model.model.multi_modal_projector, reader, words, words.image_token)


def _grid(config: Any) -> tuple[int, int]:
    side = config.image_size // config.patch_size
    return side, side
