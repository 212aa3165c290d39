"""Positions that are learned queries or latents, each of which attends to a whole picture.

They lie nowhere in the picture, so they are markers in the order of their vectors, without a grid
or a box; the encoder before them has its patches as always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.image_reader import ImageReader
from mmlens.values.errors import AddressError
from mmlens.values.labels import Label, Marker, Patch
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.values.sites import Site

    Reader = ImageReader
else:
    Reader = object


class Queries(Reader):
    """What an `ImageReader` of queries does otherwise; it stands before the class of its crops.

    Attributes:
        n: how many queries there are.
    """

    one_grid = placed = False
    n: int

    def rows(
        self, tower: Any, site: Site, layer: int | None, picture: Image.Image, image: int, crop: int
    ) -> tuple[Label, ...]:
        if tower.name == "projection":
            return self.labels(None, picture, image)
        return super().rows(tower, site, layer, picture, image, crop)

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> torch.Tensor:
        return projection(features)

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        return tuple(Marker("query", at, image) for at in range(self.n))

    def vectors(self, projected: Any, labels: Any, picture: Image.Image) -> torch.Tensor:
        return projected.flatten(0, 1)

    def patch_boxes(
        self, vision: Any, picture: Image.Image
    ) -> dict[Patch, tuple[float, float, float, float]]:
        every: Any = super().labels(vision, picture, 0)
        box = super().box
        return {patch: box(vision, patch, *picture.size) for patch in every}

    def box(
        self, vision: Any, patch: Patch, width: int, height: int
    ) -> tuple[float, float, float, float]:
        """None.

        Raises:
            AddressError: always.
        """
        raise AddressError(
            "The positions of this model's pictures are queries, each of which attends to the whole"
            " picture and lies nowhere in it: ask at 'features' or 'pixels' for places."
        )


class LatentReader(ImageReader):
    """The positions of an encoder of latents (Perceiver), and the places of its input."""

    one_grid = placed = False

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        """Rows and columns of the places of the input."""
        return vision.input_grid

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        return vision.labels(SITES["features"], None, image)

    def patch_boxes(
        self, vision: Any, picture: Image.Image
    ) -> dict[Patch, tuple[float, float, float, float]]:
        return {patch: self.box(vision, patch, *picture.size) for patch in vision.key_labels()}
