"""Mllama (Llama 3.2 Vision): pictures in tiles, whose patches are keys of gated cross-attention.

Aaron Grattafiori et al., The Llama 3 Herd of Models, 2024, section 7. A picture is fitted into the
upper left of a canvas of whole tiles. The encoder reads all tiles at once; for each tile there is
the key of a class token and those of its patches, and empty tiles up to the largest number have
keys as well, as in transformers' class. Words alone are positions.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from mmlens.families.native import Eyes, native, square
from mmlens.model.image_reader import CrossReader
from mmlens.model.laid_out import LaidOutReader, PictureLayout, tiles
from mmlens.towers.language.gated_crossing import EMPTY
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.labels import Label, Patch
from mmlens.values.sites import Site


def canvases(most: int) -> list[tuple[int, int]]:
    """Rows and columns of tiles of every canvas, in the order of the class's numbers for them."""
    sizes = range(1, most + 1)
    return [(rows, cols) for rows in sizes for cols in sizes if rows * cols <= most]


class TiledEye(nn.Module):
    """The encoder as one that reads a canvas [picture, 3, y, x] and gives its patches.

    Attributes:
        edge, side: pixels and patches along the edge of a tile.
        step: the edge of the squares of pixels that make up a picture.
        most: the largest number of tiles.
        beside: the features of all tiles, Float[picture, tile, 1 + patch, d], of the last pass;
            class tokens and empty tiles are taken from there.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual, self.config = visual, visual.config
        self.edge, self.most = visual.config.image_size, visual.config.max_num_tiles
        self.side = self.edge // visual.config.patch_size
        self.step = self.edge
        self.beside: Tensor | None = None

    @property
    def blocks(self) -> Any:
        """The blocks before the global ones, where mmlens looks for them."""
        return self.visual.transformer.layers

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch d"]:
        """Features of all patches of the canvas in reading order."""
        rows, cols = (size // self.edge for size in pixel_values.shape[2:])
        cut = pixel_values.unflatten(3, (cols, -1)).unflatten(2, (rows, -1))
        cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [b, tile, 3, y, x]
        empty = cut.new_zeros(len(cut), self.most - cut.shape[1], *cut.shape[2:])
        number = 1 + canvases(self.most).index((rows, cols))
        there = torch.arange(self.most, device=cut.device) < rows * cols
        every = (len(cut), 1)
        out = self.visual(
            torch.cat([cut, empty], 1)[:, None],
            aspect_ratio_ids=torch.full(every, number, device=cut.device),
            aspect_ratio_mask=there.long().expand(*every, -1),
        )
        whole = out.last_hidden_state[:, 0]
        self.beside = whole
        patches = whole[:, : rows * cols, 1:].unflatten(2, (self.side, -1))
        patches = patches.unflatten(1, (rows, cols)).permute(0, 1, 3, 2, 4, 5)
        return patches.flatten(1, 4)

    def tiled(self, features: Tensor, rows: int, cols: int) -> Tensor:
        """Features of a canvas as those of all its tiles: [picture, tile, 1 + patch, d]."""
        whole, self.beside = self.beside, None  # its graph is used once
        assert whole is not None  # a projection follows the encoder
        cut = features.unflatten(1, (rows, self.side, cols, self.side)).transpose(2, 3)
        cut = cut.flatten(3, 4).flatten(1, 2)
        whole = whole.to(cut)
        real = torch.cat([whole[:, : rows * cols, :1], cut], 2)
        return torch.cat([real, whole[:, rows * cols :]], 1)


class CanvasKeys(LaidOutReader, CrossReader):
    """Every patch of every tile is a key, and so are class tokens and empty tiles.

    Args:
        edge: of a tile, in pixels.
        side: patches along it.
    """

    crosses, one_grid, has_others = True, False, True

    def __init__(self, images: Any, edge: int, side: int) -> None:
        super().__init__(images)
        self.edge, self.side = edge, side

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        rows, cols = (2, 2) if picture is None else self._canvas(*picture.size)[:2]
        return rows * self.side, cols * self.side

    def size(self, vision: Any, picture: Image.Image) -> tuple[int, int]:
        rows, cols = self._canvas(*picture.size)[:2]
        return rows * self.edge, cols * self.edge

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        rows, cols, (high, wide) = self._canvas(width, height)
        canvas = 0.0, 0.0, cols * self.edge * width / wide, rows * self.edge * height / high
        cut = tiles(canvas, rows, cols, (self.side, self.side))
        places = [place for at, crop in enumerate(cut) for place in ("class", *crop.places(at))]
        empty = (self.images.max_image_tiles - len(cut)) * (1 + self.side**2)
        return PictureLayout(tuple(cut), (*places, *[EMPTY] * empty), 1)

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[Tensor]:
        read = self.images(images=[[picture]], return_tensors="pt")
        rows, cols = self._canvas(*picture.size)[:2]
        cut = read["pixel_values"][0, 0, : rows * cols].unflatten(0, (rows, cols))
        return [cut.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)]

    def rows(
        self, tower: Any, site: Site, layer: int | None, picture: Image.Image, image: int, crop: int
    ) -> tuple[Label, ...]:
        if tower.name == "projection":
            return self.labels(tower, picture, image)
        rows, cols = self._canvas(*picture.size)[:2]
        high, wide, s = rows * self.side, cols * self.side, self.side
        return tuple(
            Patch(row % s, col % s, image, row // s * cols + col // s)
            for row in range(high)
            for col in range(wide)
        )

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> Tensor:
        rows, cols = (edge // self.edge for edge in size)
        return projection(vision.module.tiled(features, rows, cols)).flatten(1, 2)

    def vectors(self, projected: Tensor, labels: Any, picture: Image.Image) -> Tensor:
        return projected[0]

    def _canvas(self, width: int, height: int) -> tuple[int, int, tuple[int, int]]:
        """Rows and columns of tiles, and the pixels (y, x) that the picture takes of them."""
        from transformers.models.mllama import image_processing_mllama as theirs

        most, edge = self.images.max_image_tiles, self.edge
        high, wide = map(int, theirs.get_optimal_tiled_canvas(height, width, most, edge))
        y, x = theirs.get_image_size_fit_to_canvas(height, width, high, wide, edge)
        return high // edge, wide // edge, (int(y), int(x))


@native("mllama", "MllamaForConditionalGeneration", "meta-llama/Llama-3.2-11B-Vision-Instruct")
def mllama(model: Any, processor: Any) -> Eyes:
    """The encoder of a canvas, the projection, and the keys of all tiles."""
    eye = TiledEye(model.model.vision_model)
    side = next(rows for rows in range(eye.most, 0, -1) if rows * rows <= eye.most) * eye.edge
    vision = from_hf(eye, square(processor.image_processor, side))
    reader = CanvasKeys(processor.image_processor, eye.edge, eye.side)
    return Eyes(vision, model.model.multi_modal_projector, reader, processor, processor.image_token)
