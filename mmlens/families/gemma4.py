"""Gemma 4: pictures of any size as a list of patches, squares of them pooled to a position.

Gemma Team, Gemma 4, 2026. A picture keeps its shape, and its encoder is given its patches with the
row and column of each. What is pooled, scaled and mapped behind the encoder is the projection. In
the small models every layer also reads a vector of its own for each token
(`mmlens.towers.language.telling.PicturesArePadding`).
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmlens.families.native import Eyes, native, square
from mmlens.families.qwen_vl import MEASURED, AnySize
from mmlens.towers.vision.wrap import from_hf


class ListedPatches(AnySize):
    """One grid of a picture whose patches the image processor lists, padded to one length.

    Args:
        patch: the edge of a patch in pixels.
    """

    def __init__(self, images: Any, merge: int, patch: int) -> None:
        super().__init__(images, merge)
        self.patch = patch

    @property
    def _edge(self) -> int:
        return self.patch

    def _measured(self, blank: Image.Image) -> tuple[int, int]:
        cols, rows = (self._made(blank)["image_position_ids"][0].amax(0) + 1).tolist()
        return rows, cols

    def _made(self, picture: Image.Image) -> Any:
        return self.images(images=[picture], return_tensors="pt")

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[Tensor]:
        (rows, cols), p = self._patches(*picture.size), self.patch
        patches = self._made(picture)["pixel_values"][0, : rows * cols].view(rows, cols, p, p, 3)
        return [patches.permute(4, 0, 2, 1, 3).reshape(3, rows * p, cols * p)]


class PlacedPatches(nn.Module):
    """The encoder of Gemma 4 as one that reads pictures [picture, 3, h, w] of any size.

    Args:
        tower: the encoder of the class, whose pooler is not used.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.embeddings, self.encoder, self.config = (
            tower.patch_embedder,
            tower.encoder,
            tower.config,
        )
        self.step = tower.config.patch_size * tower.config.pooling_kernel_size

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Features [picture, patch, d] of the patches before they are pooled."""
        p = self.config.patch_size
        patches = pixel_values.unfold(2, p, p).unfold(3, p, p)  # [b, 3, row, col, y, x]
        high, wide = patches.shape[2:4]
        patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        rows, cols = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        places = torch.stack([cols.flatten(), rows.flatten()], -1).to(patches.device)
        places = places.expand(len(patches), -1, -1)
        padding = torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
        entered = self.embeddings(patches, places, padding)
        return self.encoder(
            inputs_embeds=entered, attention_mask=~padding, pixel_position_ids=places
        ).last_hidden_state


class Pooled(nn.Module):
    """Squares of patches averaged, scaled as the class does it, and mapped.

    Args:
        tower: the encoder, whose statistics are those of its checkpoint.
        embed: the map to the language model.
    """

    def __init__(self, tower: Any, embed: nn.Module) -> None:
        super().__init__()
        self.embed, self.size = embed, tower.config.pooling_kernel_size**2
        for name in ("std_bias", "std_scale"):
            self.register_buffer(name, getattr(tower, name, None), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [patch, d_vision], square by square, to vectors [pos, d_model]."""
        width = features.shape[-1]
        mean = features.float().unflatten(0, (-1, self.size)).mean(1).to(features.dtype)
        pooled = mean.float() * width**0.5
        if self.std_scale is not None:
            pooled = (pooled - self.std_bias.float()) * self.std_scale.float()  # type: ignore[union-attr]
        return self.embed(inputs_embeds=pooled.to(features.dtype))


@native("gemma4", "Gemma4ForConditionalGeneration", "google/gemma-4-E2B-it")
def gemma4(model: Any, processor: Any) -> Eyes:
    """The encoder up to its pooler, and the pooler with the map behind it."""
    tower, images = model.model.vision_tower, processor.image_processor
    eye = PlacedPatches(tower)
    size = [edge * eye.step for edge in MEASURED]
    vision = from_hf(eye, {**square(images, 1), "image_size": size})
    edges = tower.config.pooling_kernel_size, tower.config.patch_size
    projection = Pooled(tower, model.model.embed_vision)
    return Eyes(vision, projection, ListedPatches(images, *edges), processor, processor.image_token)
