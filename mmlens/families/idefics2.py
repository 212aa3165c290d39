"""Idefics2: a perceiver reads a picture of any size into a few queries.

Hugo Laurençon et al., What matters when building vision-language models?, 2024. The encoder reads
a picture in its own shape, up to whole patches; a perceiver resamples its patches to learned
queries, whose positions lie nowhere in the picture (`mmlens.model.queries`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families.native import Eyes, native, square
from mmlens.families.pixtral import PixtralSize
from mmlens.families.qwen_vl import MEASURED
from mmlens.model.queries import Queries
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import CapabilityError


class Resampled(Queries, PixtralSize):
    """One crop of the rows and columns of whole patches that a picture has.

    Args:
        n: how many queries there are.
        patch: the edge of a patch in pixels.
    """

    def __init__(self, images: Any, n: int, patch: int) -> None:
        super().__init__(images, 1, patch)
        self.n = n

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        pixels = self.images(images=[[picture]], return_tensors="pt")["pixel_values"][0, 0]
        high, wide = (edge // self.patch * self.patch for edge in pixels.shape[1:])
        return [pixels[:, :high, :wide]]  # the encoder reads whole patches


class Resampler(nn.Module):
    """The connector, which is given no padding."""

    def __init__(self, connector: nn.Module) -> None:
        super().__init__()
        self.connector = connector

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [crop, patch, d_vision] to vectors [crop, query, d_model]."""
        there = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return self.connector(features, there)


@native("idefics2", "Idefics2ForConditionalGeneration", "HuggingFaceM4/idefics2-8b")
def idefics2(model: Any, processor: Any) -> Eyes:
    """The encoder, and the perceiver."""
    config, words = model.config, copy.copy(processor)
    if getattr(words.image_processor, "do_image_splitting", False):
        raise CapabilityError(
            "This processor of Idefics2 adds four crops to every picture (do_image_splitting), and"
            " mmlens reads one: set processor.image_processor.do_image_splitting = False."
        )
    n = words.image_seq_len = config.perceiver_config.resampler_n_latents
    patch, tower = config.vision_config.patch_size, model.model.vision_model
    tower.step = patch  # of a copy that is ours
    size = [edge * patch for edge in MEASURED]
    vision = from_hf(tower, {**square(words.image_processor, 1), "image_size": size})
    reader = Resampled(words.image_processor, n, patch)
    return Eyes(vision, Resampler(model.model.connector), reader, words, "<image>")
