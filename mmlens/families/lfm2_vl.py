"""LFM2-VL: pictures of any size as a list of patches, 2 x 2 of them shuffled into one position.

Liquid AI, LFM2 Technical Report, 2025. A large picture is cut into tiles beside a thumbnail of
another size; such crops have no common grid, so a picture is read whole or refused.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from mmlens.families.gemma4 import ListedPatches
from mmlens.families.native import Eyes, native, square
from mmlens.families.qwen_vl import MEASURED
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import PromptError


class Whole(ListedPatches):
    """One grid of a picture that is not cut into tiles."""

    def _made(self, picture: Image.Image) -> Any:
        return self.images(images=[picture], return_tensors="pt", return_row_col_info=True)

    def _measured(self, blank: Image.Image) -> tuple[int, int]:
        made = self._made(blank)
        if len(made["spatial_shapes"]) > 1:
            raise PromptError(
                f"A picture of {blank.width} x {blank.height} pixels is cut into tiles and a"
                " thumbnail of another size, which mmlens does not label together: make it"
                " smaller, or set processor.image_processor.do_image_splitting = False."
            )
        rows, cols = made["spatial_shapes"][0].tolist()
        return rows, cols

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> torch.Tensor:
        grid = [edge // self.patch for edge in size]
        return projection(features.unflatten(1, grid)).flatten(1, 2)


@native("lfm2_vl", "Lfm2VlForConditionalGeneration", "LiquidAI/LFM2-VL-1.6B")
def lfm2_vl(model: Any, processor: Any) -> Eyes:
    """The encoder, and the projector that shuffles."""
    tower, images = model.model.vision_tower, processor.image_processor
    merge, patch = model.config.downsample_factor, model.config.vision_config.patch_size
    tower.step = merge * patch  # of a copy that is ours
    size = [edge * tower.step for edge in MEASURED]
    vision = from_hf(tower, {**square(images, 1), "image_size": size})
    projection, reader = model.model.multi_modal_projector, Whole(images, merge, patch)
    return Eyes(vision, projection, reader, processor, processor.image_token)
