"""Janus and DeepSeek-VL: the whole picture on a padded square, every patch a position.

Chengyue Wu et al., Janus: Decoupling Visual Encoding for Unified Multimodal Understanding and
Generation, 2024; Haoyu Lu et al., DeepSeek-VL: Towards Real-World Vision-Language Understanding,
2024. What Janus generates pictures with (codes, and a head for them) is left out.
"""

from __future__ import annotations

import copy
from typing import Any

from mmlens.families.gemma3 import Squashed
from mmlens.families.native import Eyes, native, square
from mmlens.model.laid_out import Crop, PictureLayout
from mmlens.towers.vision.wrap import from_hf


class OnSquare(Squashed):
    """One grid over the square around the picture, which is padded on both sides."""

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        side, x, y = max(width, height) / 2, width / 2, height / 2
        box = x - side, y - side, x + side, y + side
        return PictureLayout.in_turn([Crop("picture", box, self._grid)])


def janus(model: Any, processor: Any) -> Eyes:
    """The encoder, and the aligner."""
    words, images = copy.copy(processor), processor.image_processor
    side = model.config.vision_config.image_size
    vision = from_hf(model.model.vision_model, square(images, side))
    words.num_image_tokens = vision.grid[0] * vision.grid[1]
    reader = OnSquare(images, vision.grid)
    return Eyes(vision, model.model.aligner, reader, words, words.image_token)


native("janus", "JanusForConditionalGeneration", "deepseek-community/Janus-Pro-1B")(janus)
native(
    "deepseek_vl", "DeepseekVLForConditionalGeneration", "deepseek-community/deepseek-vl-1.3b-chat"
)(janus)
