"""GLM-V and GLM-OCR: pictures of any size, 2 x 2 patches joined to one position.

GLM-V Team, GLM-4.1V-Thinking and GLM-4.5V: Towards Versatile Multimodal Reasoning with Scalable
Reinforcement Learning, 2025. Pictures are read as Qwen-VL reads them; squares of patches are joined
by a convolution in front of the merger.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmlens.families.native import Eyes, native, square
from mmlens.families.qwen_vl import MEASURED, AnySize
from mmlens.towers.vision.packed_eye import PackedEye
from mmlens.towers.vision.wrap import from_hf


class JoinedSquares(nn.Module):
    """Squares of patches joined by the encoder's convolution, and merged.

    Args:
        visual: the encoder.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.downsample, self.merger = visual.downsample, visual.merger
        self.edge = visual.config.spatial_merge_size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [patch, d_vision], square by square, to vectors [pos, d_model]."""
        squares = features.unflatten(0, (-1, self.edge, self.edge)).permute(0, 3, 1, 2)
        return self.merger(self.downsample(squares).flatten(1))


def glm_v(model: Any, processor: Any) -> Eyes:
    """The encoder up to its convolution, and the convolution with the merger."""
    visual, images = model.model.visual, processor.image_processor
    eye = PackedEye(visual)
    size = [edge * eye.step for edge in MEASURED]
    vision = from_hf(eye, {**square(images, 1), "image_size": size})
    picture = f"<|begin_of_image|>{processor.image_token}<|end_of_image|>"
    return Eyes(vision, JoinedSquares(visual), AnySize(images, eye.merge), processor, picture)


native("glm4v", "Glm4vForConditionalGeneration", "zai-org/GLM-4.1V-9B-Thinking")(glm_v)
native("glm46v", "Glm46VForConditionalGeneration", "zai-org/GLM-4.6V-Flash")(glm_v)
native("glm4v_moe", "Glm4vMoeForConditionalGeneration", "zai-org/GLM-4.5V")(glm_v)
native("glm_ocr", "GlmOcrForConditionalGeneration", "zai-org/GLM-OCR")(glm_v)
