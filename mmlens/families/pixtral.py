"""Mistral 3, Pixtral and LightOnOCR: pictures of any size, in most a word for the end of each row.

Pravesh Agrawal et al., Pixtral 12B, 2024. A picture keeps its shape up to whole positions; Mistral
3 merges 2 x 2 patches to one. The ends of rows ([IMG_BREAK], [IMG_END]) are words with ids of their
own, and are labelled as such. Pixtral itself is a LlavaForConditionalGeneration. LightOnOCR (Said
Taghadouini et al., LightOnOCR, 2025) has no such words, and leaves a last row or column of patches
that fills no square of 2 x 2 out of its positions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image

from mmlens.families.native import Eyes, native, square
from mmlens.families.qwen_vl import MEASURED, AnySize
from mmlens.model.laid_out import Crop, PictureLayout
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import CapabilityError


class PixtralSize(AnySize):
    """One grid of the rows and columns that Pixtral's image processor makes of a size.

    Args:
        merge: how many patches are merged to one position, along each edge.
        patch: the edge of a patch in pixels.
    """

    def __init__(self, images: Any, merge: int, patch: int) -> None:
        super().__init__(images, merge)
        self.patch = patch
        step = merge * patch
        self.options = {"patch_size": {"height": step, "width": step}}

    @property
    def _edge(self) -> int:
        return self.patch

    def _measured(self, blank: Image.Image) -> tuple[int, int]:
        high, wide = self.crops(None, blank)[0].shape[1:]
        return high // self.patch, wide // self.patch

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        return [
            self.images(images=[picture], return_tensors="pt", **self.options)["pixel_values"][0]
        ]

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> torch.Tensor:
        if self.merge == 1:
            return projection(features)
        sizes = [tuple(size)] * len(features)
        return projection(features.flatten(0, 1), sizes).unflatten(0, (len(features), -1))


class WholeSquares(PixtralSize):
    """A grid of whole patches, of which whole squares become positions."""

    def __init__(self, images: Any, merge: int, patch: int) -> None:
        super().__init__(images, merge, patch)
        self.options = {"patch_size": {"height": patch, "width": patch}}

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        rows, cols = self._patches(width, height)
        grid = rows // self.merge, cols // self.merge
        bottom, right = (n * self.merge for n in grid)
        box = 0.0, 0.0, width * right / cols, height * bottom / rows
        return PictureLayout.in_turn([Crop("picture", box, grid)])


def pixtral(model: Any, processor: Any) -> Eyes:
    """The whole encoder, and the projector."""
    config, words = model.config, copy.copy(processor)
    if getattr(config, "vision_feature_layer", -1) not in (-1, [-1]):
        raise CapabilityError(
            f"This model projects layer {config.vision_feature_layer} of Pixtral's encoder, and"
            " mmlens reads its last: take a checkpoint with vision_feature_layer=-1."
        )
    patch = config.vision_config.patch_size
    merge = getattr(config, "spatial_merge_size", 1)
    words.patch_size, words.spatial_merge_size = patch, merge
    inside, images, reader = model.model, words.image_processor, PixtralSize
    if config.model_type == "lighton_ocr":
        words.effective_patch_size, reader = patch * merge, WholeSquares
        tower, projection = inside.vision_encoder, inside.vision_projection
    else:
        tower, projection = inside.vision_tower, inside.multi_modal_projector
    tower.step = patch * (merge if reader is PixtralSize else 1)  # of a copy that is ours
    size = [edge * patch * merge for edge in MEASURED]
    vision = from_hf(tower, {**square(images, 1), "image_size": size})
    return Eyes(vision, projection, reader(images, merge, patch), words, words.image_token)


native(
    "mistral3", "Mistral3ForConditionalGeneration", "mistralai/Mistral-Small-3.1-24B-Instruct-2503"
)(pixtral)
native("lighton_ocr", "LightOnOcrForConditionalGeneration", "lightonai/LightOnOCR-1B-1025")(pixtral)
