"""Qwen-VL: pictures of any size, 2 x 2 patches merged to one position.

Peng Wang et al., Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any
Resolution, 2024. A picture is resized to whole positions and keeps its shape; its positions carry
rows and columns as rotary positions (`mmlens.towers.language.telling`). Qwen3-VL adds what leaves
some of the encoder's blocks behind the first layers of its language model (Lingchen Meng et al.,
DeepStack, 2024; `mmlens.towers.language.deepstack`).
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families.native import Eyes, native, square
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout, whole
from mmlens.towers.vision.packed_eye import PackedEye
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.labels import Label, Patch
from mmlens.values.sites import Site

MEASURED = (4, 6)
"""Rows and columns of positions of the picture on which the encoder is measured."""


class AnySize(LaidOutReader):
    """One grid, whose rows and columns are those that the image processor makes of a size.

    Args:
        merge: how many patches are merged to one position, along each edge.
    """

    one_grid = True

    def __init__(self, images: Any, merge: int) -> None:
        super().__init__(images)
        self.merge = merge
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        rows, cols = vision.grid if picture is None else self._patches(*picture.size)
        return rows // self.merge, cols // self.merge

    def size(self, vision: Any, picture: Image.Image) -> tuple[int, int]:
        rows, cols = self._patches(*picture.size)
        return rows * self._edge, cols * self._edge

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        rows, cols = self._patches(width, height)
        grid = rows // self.merge, cols // self.merge
        return PictureLayout.in_turn([Crop("picture", whole(width, height), grid)])

    def rows(
        self, tower: Any, site: Site, layer: int | None, picture: Image.Image, image: int, crop: int
    ) -> tuple[Label, ...]:
        high, wide = self._patches(*picture.size)
        edge = self.merge if tower.name == "projection" else 1
        squares = [(row, col) for row in range(high // edge) for col in range(wide // edge)]
        return tuple(Patch(row, col, image, crop) for row, col in squares)

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        made = self.images(images=[picture], return_tensors="pt")
        (_, rows, cols), m, p = made["image_grid_thw"][0].tolist(), self.merge, self._edge
        patches = made["pixel_values"].view(rows // m, cols // m, m, m, 3, -1, p, p)[..., 0, :, :]
        return [patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * p, cols * p)]

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> torch.Tensor:
        m, (rows, cols) = self.merge, (edge // self._edge for edge in size)
        squares = features.unflatten(1, (rows // m, m, cols // m, m)).transpose(2, 3)
        return projection(squares.flatten(0, 4)).unflatten(0, (len(features), -1))

    @property
    def _edge(self) -> int:
        return self.images.patch_size

    def _patches(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of this size is cut into."""
        if (width, height) not in self._grids:
            self._grids[width, height] = self._measured(Image.new("RGB", (width, height)))
        return self._grids[width, height]

    def _measured(self, blank: Image.Image) -> tuple[int, int]:
        """Rows and columns of patches of a picture."""
        read = self.images(images=[blank], return_tensors="pt")
        _, rows, cols = read["image_grid_thw"][0].tolist()
        return rows, cols


class Mergers(nn.Module):
    """Features of several blocks, side by side, each merged by its own merger.

    Args:
        visual: the encoder of Qwen3-VL.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.mergers = nn.ModuleList([visual.merger, *visual.deepstack_merger_list])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [patch, block * d_vision] to vectors [pos, block * d_model]."""
        parts = (one.contiguous() for one in features.chunk(len(self.mergers), -1))
        merged = [merge(part) for merge, part in zip(self.mergers, parts, strict=True)]
        return torch.cat(merged, -1)


def qwen_vl(model: Any, processor: Any) -> Eyes:
    """The encoder up to its merger, the merger, and one grid of positions."""
    visual, images = model.model.visual, processor.image_processor
    eye = PackedEye(visual)
    size = [edge * eye.step for edge in MEASURED]
    vision = from_hf(eye, {**square(images, 1), "image_size": size})
    reader = AnySize(images, eye.merge)
    picture = f"<|vision_start|>{processor.image_token}<|vision_end|>"
    projection = Mergers(visual) if eye.deep else visual.merger
    return Eyes(vision, projection, reader, processor, picture)


native("qwen2_vl", "Qwen2VLForConditionalGeneration", "Qwen/Qwen2-VL-7B-Instruct")(qwen_vl)
native("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "Qwen/Qwen2.5-VL-7B-Instruct")(qwen_vl)
native("qwen3_vl", "Qwen3VLForConditionalGeneration", "Qwen/Qwen3-VL-2B-Instruct")(qwen_vl)
native("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", "Qwen/Qwen3-VL-30B-A3B-Instruct")(
    qwen_vl
)
native("qwen3_5", "Qwen3_5ForConditionalGeneration", "Qwen/Qwen3.5-27B")(qwen_vl)
native("qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", "Qwen/Qwen3.5-35B-A3B")(qwen_vl)
native("cosmos3_omni", "Cosmos3OmniForConditionalGeneration", "nvidia/Cosmos3-Nano")(qwen_vl)
native("exaone4_5", "Exaone4_5_ForConditionalGeneration", "LGAI-EXAONE/EXAONE-4.5-33B")(qwen_vl)
