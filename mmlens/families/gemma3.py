"""Gemma 3 and PaliGemma: the whole picture squashed to one square of positions.

Gemma Team, Gemma 3 Technical Report, 2025: patches are pooled to 16 x 16 positions, among which
attention looks both ways. Lucas Beyer et al., PaliGemma: A versatile 3B VLM for transfer, 2024:
every patch is a position, before the words; attention looks both ways in the whole prompt, which
ends at its newline.
"""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from mmlens.families.native import Eyes, native, square
from mmlens.model.chat_reader import ChatReader
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout, whole
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.prompt import Prompt


class Squashed(LaidOutReader):
    """One grid over the whole picture.

    Args:
        grid: its rows and columns of positions.
    """

    one_grid = True

    def __init__(self, images: Any, grid: tuple[int, int]) -> None:
        super().__init__(images)
        self._grid = grid

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        return self._grid

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        return PictureLayout.in_turn([Crop("picture", whole(width, height), self._grid)])


@native("gemma3", "Gemma3ForConditionalGeneration", "google/gemma-3-4b-it")
def gemma3(model: Any, processor: Any) -> Eyes:
    """The encoder, and the projector that pools its patches."""
    images = processor.image_processor
    if getattr(images, "do_pan_and_scan", False):
        raise CapabilityError(
            "This processor of Gemma 3 adds crops to long pictures (do_pan_and_scan), which mmlens"
            " does not label: set processor.image_processor.do_pan_and_scan = False."
        )
    side = math.isqrt(model.config.mm_tokens_per_image)
    reader = Squashed(images, (side, side))
    projection = model.model.multi_modal_projector
    return Eyes(_eye(model, images), projection, reader, processor, processor.boi_token)


@native("paligemma", "PaliGemmaForConditionalGeneration", "google/paligemma2-3b-mix-224")
def paligemma(model: Any, processor: Any) -> Eyes:
    """The encoder, and a linear map of each patch."""
    images, vision = processor.image_processor, _eye(model, processor.image_processor)
    reader = Squashed(images, vision.grid)
    projection = model.model.multi_modal_projector
    return Eyes(vision, projection, reader, processor, "<image>", OneLine)


class OneLine(ChatReader):
    """Prompts of PaliGemma, which end at their newline."""

    def written(self, prompt: Prompt) -> str:
        if "\n" in prompt.text:
            raise PromptError(
                "A prompt of PaliGemma is one line, and its newline ends it: leave the newlines"
                f" out of {prompt.text!r}."
            )
        return super().written(prompt)


def _eye(model: Any, images: Any) -> HookedVision:
    recipe = square(images, model.config.vision_config.image_size)
    return wrap_vision(model.model.vision_tower, recipe)
