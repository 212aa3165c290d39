"""Ovis 2: positions of a picture are mixtures of visual words, tiles with markers between them.

Shiyin Lu et al., Ovis: Structural Embedding Alignment for Multimodal Large Language Model, 2024
(arXiv:2405.20797). Each patch (or square of patches) becomes probabilities of visual words, and its
vector is their mean in a table of vectors. Five more rows of that table stand where the prompt has
<IMG_START>, <IMG_GRID>, <IMG_COL>, <IMG_ROW> and <IMG_END>: these are markers, and no words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families.native import Eyes, native, square
from mmlens.model.chat_reader import ChatReader
from mmlens.model.laid_out import Crop, LaidOutReader, PictureLayout, Place, tiles, whole
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import CapabilityError

MARKERS = {name: f"<IMG_{name.upper()}>" for name in ("start", "grid", "col", "row", "end")}
"""The names of markers, and how the processor writes them."""


class MarkedTiles(LaidOutReader):
    """A thumbnail and tiles, or the picture alone, with markers around and between them.

    Args:
        joined: how many patches become one position, along each edge.
    """

    def __init__(self, images: Any, markers: Mapping[str, torch.Tensor], joined: int) -> None:
        super().__init__(images, markers)
        self.joined = joined

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        rows, cols = vision.grid
        return -(-rows // self.joined), -(-cols // self.joined)

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        box, grid = whole(width, height), self.grid(vision)
        rows, cols = self._tiles(width, height, vision.image_size[0])
        cut = tiles(box, rows, cols, grid) if rows * cols > 1 else []
        crops = [Crop("thumbnail" if cut else "picture", box, grid), *cut]
        places: list[Place] = ["start", *crops[0].places(0), "grid"]
        for at, crop in enumerate(cut, 1):
            places += crop.places(at)
            if at < len(cut):
                places.append("col" if at % cols else "row")
        return PictureLayout(tuple(crops), (*places, "end"), len(crops))

    def _tiles(self, width: int, height: int, side: int) -> tuple[int, int]:
        """Rows and columns of tiles: the image processor's own choice."""
        from transformers.models.ovis2 import image_processing_ovis2 as own

        images = self.images
        if not images.crop_to_patches or images.max_patches <= 1:
            return 1, 1
        if images.use_covering_area_grid:
            found = own.get_min_tile_covering_grid((height, width), side, images.max_patches)
        else:
            least, most = images.min_patches, images.max_patches
            found = own.get_optimal_tiled_canvas((height, width), (side, side), least, most)
        return found[1], found[0]


class VisualWords(nn.Module):
    """Probabilities of visual words, and the mean of their vectors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        eye = model.vision_tower
        self.head, self.norm = eye.head_linear, eye.head_norm
        self.table, self.joined = model.visual_embeddings_table, eye.config.hidden_stride
        self.hard = eye.config.tokenize_function == "st_argmax"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [crop, patch, d_vision] to vectors [crop, pos, d_model]."""
        logits = self.norm(self.head(self._squares(features)))
        words = logits.softmax(-1)
        if self.hard:  # the gradient is that of the probabilities, as in the class
            one = torch.zeros_like(words).scatter_(-1, words.argmax(-1, keepdim=True), 1.0)
            words = one - words.detach() + words
        return words @ self.table.weight[: words.shape[-1]]

    def _squares(self, x: torch.Tensor) -> torch.Tensor:
        n = self.joined
        if n == 1:
            return x
        side = round(x.shape[1] ** 0.5)
        more = -side % n
        x = nn.functional.pad(x.unflatten(1, (side, side)), (0, 0, 0, more, 0, more))
        x = x.unflatten(2, (-1, n)).unflatten(1, (-1, n))
        return x.transpose(2, 3).flatten(3).flatten(1, 2)


class Indicated(ChatReader):
    """Prompts whose pictures have positions with ids of their own, beside those of patches."""

    def pictured(self, ids: list[int]) -> list[bool]:
        named = self.processor.tokenizer.convert_tokens_to_ids(list(MARKERS.values()))
        return [token == self.image_id or token in named for token in ids]


@native("ovis2", "Ovis2ForConditionalGeneration", "thisisiron/Ovis2-1B-hf")
def ovis2(model: Any, processor: Any) -> Eyes:
    """The encoder before its head, and the head with the table of visual words."""
    inside, config, images = model.model, model.config, processor.image_processor
    if config.vision_config.tokenize_function == "gumbel_argmax":
        raise CapabilityError(
            "This Ovis2 draws its visual words by chance (tokenize_function='gumbel_argmax'), so no"
            " run is like another: set config.vision_config.tokenize_function = 'softmax'."
        )
    vision = from_hf(
        inside.vision_tower.transformer, square(images, config.vision_config.image_size)
    )
    known = processor.tokenizer.convert_tokens_to_ids(list(MARKERS.values()))
    order, first = list(config.visual_indicator_token_ids), inside.vision_tower.config.vocab_size
    rows = inside.visual_embeddings_table.weight.detach()[first - len(order) :]
    markers = {name: rows[order.index(at)] for name, at in zip(MARKERS, known, strict=True)}
    reader = MarkedTiles(images, markers, config.vision_config.hidden_stride)
    return Eyes(vision, VisualWords(inside), reader, processor, processor.image_token, Indicated)
