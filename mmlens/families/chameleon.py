"""Chameleon: the middle square of a picture as codes, each of them a word of the vocabulary.

Chameleon Team, Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024. An autoencoder makes a
map of the square, whose places become the nearest of 8192 codes, and a code is a word; no gradient
passes back to the picture. The class never says a code: it sets their logits to the lowest number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from mmlens.families.codes import Codes
from mmlens.families.native import Eyes, native, square
from mmlens.model.chat_reader import ChatReader
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout
from mmlens.towers.vision.code_eye import CodeEye
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import PromptError, reason
from mmlens.values.prompt import Prompt


class SquareCodes(Codes):
    """The codebook of Chameleon, which takes maps [crop, d, row, col]."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [crop, place, d] to vectors [crop, pos, d_model]."""
        codes = self.quantize(features.transpose(1, 2)[..., None])[2].view(len(features), -1)
        return self.embedding(self.words[codes])


class MiddleSquare(LaidOutReader):
    """One grid of codes over the largest square in the middle of a picture."""

    one_grid = coded = True

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        side = min(width, height)
        x, y = (width - side) / 2, (height - side) / 2
        return PictureLayout.in_turn([Crop("picture", (x, y, x + side, y + side), vision.grid)])

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        return list(self.images(images=[picture], return_tensors="pt")["pixel_values"])


class Separated(ChatReader):
    """Prompts of Chameleon, whose turn ends with a token of its own; `template=False` has none."""

    def inputs(self, prompt: Prompt, bos: bool | None = None) -> Mapping[str, Any]:
        options: dict[str, Any] = {} if bos is None else {"add_special_tokens": bool(bos)}
        bare = not prompt.template
        try:
            return dict(
                self.processor(
                    images=[list(prompt.pictures)] if prompt.pictures else None,
                    text=[self.written(prompt)],
                    return_tensors="pt",
                    return_for_text_completion=bare,
                    **options,
                )
            )
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise PromptError(f"The processor does not read {prompt!r}: {reason(error)}") from error


@native("chameleon", "ChameleonForConditionalGeneration", "facebook/chameleon-7b")
def chameleon(model: Any, processor: Any) -> Eyes:
    """The encoder of the autoencoder, its codebook, and the words of the codes."""
    inside, words = model.model, copy.copy(processor)
    vq, images = inside.vqmodel, words.image_processor
    step = 2 ** (len(vq.config.channel_multiplier) - 1)
    side = images.crop_size["height"]
    vision = from_hf(CodeEye(vq, step), square(images, side))
    words.image_seq_length = (side // step) ** 2
    known = inside.vocabulary_mapping.img2bpe_mapping_tensor
    codes = SquareCodes(vq.quantize, model.get_input_embeddings(), known)
    return Eyes(vision, codes, MiddleSquare(images), words, words.image_token, Separated)
