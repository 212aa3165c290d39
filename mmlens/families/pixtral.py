"""Mistral 3 and Pixtral: pictures of any size, a word for the end of each row.

Pravesh Agrawal et al., Pixtral 12B, 2024. A picture keeps its shape up to whole positions; Mistral
3 merges 2 x 2 patches to one. The ends of rows ([IMG_BREAK], [IMG_END]) are words with ids of their
own, and are labelled as such. Pixtral itself is a LlavaForConditionalGeneration.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image

from mmlens.families.native import Eyes, native, square
from mmlens.families.qwen_vl import MEASURED, AnySize
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


@native(
    "mistral3", "Mistral3ForConditionalGeneration", "mistralai/Mistral-Small-3.1-24B-Instruct-2503"
)
def pixtral(model: Any, processor: Any) -> Eyes:
    """The whole encoder, and the projector."""
    config, words = model.config, copy.copy(processor)
    if config.vision_feature_layer not in (-1, [-1]):
        raise CapabilityError(
            f"This model projects layer {config.vision_feature_layer} of Pixtral's encoder, and"
            " mmlens reads its last: take a checkpoint with vision_feature_layer=-1."
        )
    patch = config.vision_config.patch_size
    merge = getattr(config, "spatial_merge_size", 1)
    words.patch_size, words.spatial_merge_size = patch, merge
    tower, images = model.model.vision_tower, words.image_processor
    tower.step = patch * merge  # of a copy that is ours
    size = [edge * tower.step for edge in MEASURED]
    vision = from_hf(tower, {**square(images, 1), "image_size": size})
    reader = PixtralSize(images, merge, patch)
    return Eyes(vision, model.model.multi_modal_projector, reader, words, words.image_token)
