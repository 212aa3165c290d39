"""Emu3: a picture of any size as codes, each of them a word of the vocabulary.

Xinlong Wang et al., Emu3: Next-Token Prediction is All You Need, 2024. An autoencoder makes a map
of the picture, whose places become the nearest of 32768 codes, and a code is a word. So a position
has its place in the grid of codes, a word of its own ends each row, and no gradient passes from the
words back to the picture.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families.native import Eyes, native, square
from mmlens.families.pixtral import PixtralSize
from mmlens.families.qwen_vl import MEASURED
from mmlens.model.laid_out import Crop, PictureLayout, whole
from mmlens.towers.vision.code_eye import CodeEye
from mmlens.towers.vision.wrap import from_hf


class Codes(nn.Module):
    """The map's places to the word vectors of their codes.

    Args:
        quantize: the class's codebook.
        embedding: of the words.
        words: Int[code], the word of each code.
    """

    words: torch.Tensor

    def __init__(self, quantize: nn.Module, embedding: nn.Module, words: torch.Tensor) -> None:
        super().__init__()
        self.quantize, self.embedding = quantize, embedding
        self.register_buffer("words", words.long(), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [crop, place, d] to vectors [crop, pos, d_model]."""
        line = features.transpose(1, 2)[:, None, :, :, None]  # [crop, frame, d, place, 1]
        codes = self.quantize(line).view(len(features), -1)
        return self.embedding(self.words[codes])


class CodedRows(PixtralSize):
    """One grid of codes, a marker behind each row.

    Args:
        newline: the vector Float[d_model] of the word that ends a row.
        step: the edge of a place in pixels.
    """

    coded = True

    def __init__(self, images: Any, newline: torch.Tensor, step: int) -> None:
        super().__init__(images, 1, step)
        self.options, self.markers = {}, {"newline": newline.detach()}

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        rows, cols = self.grid(vision, Image.new("1", (width, height)))
        places = [
            place
            for row in range(rows)
            for place in (*((0, row, col) for col in range(cols)), "newline")
        ]
        return PictureLayout(
            (Crop("picture", whole(width, height), (rows, cols)),), tuple(places), 1
        )


@native("emu3", "Emu3ForConditionalGeneration", "BAAI/Emu3-Chat-hf")
def emu3(model: Any, processor: Any) -> Eyes:
    """The encoder of the autoencoder, its codebook, and the words of the codes."""
    inside = model.model
    vq, known, images = inside.vqmodel, inside.vocabulary_mapping, processor.image_processor
    step = vq.vision_spatial_factor
    size = [edge * step for edge in MEASURED]
    vision = from_hf(CodeEye(vq, step), {**square(images, 1), "image_size": size})
    embedding = model.get_input_embeddings()
    codes = Codes(vq.quantize, embedding, known.img2bpe_mapping_tensor)
    newline = embedding.weight[known.eol_token_id]
    return Eyes(vision, codes, CodedRows(images, newline, step), processor, processor.image_token)
