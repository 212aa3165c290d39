"""Pictures that are read in several crops: where each crop and each position lies.

A `PictureLayout` lists the crops that the encoder reads of a picture of one size, with their boxes
in pixels of the picture, and the positions of the picture in the prompt, in order. `LaidOutReader`
is an `ImageReader` that needs nothing else: labels, boxes and vectors follow from the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.image_reader import ImageReader
from mmlens.values.crops import Box, Crop
from mmlens.values.errors import AddressError
from mmlens.values.labels import Label, Marker, Patch

if TYPE_CHECKING:
    from PIL import Image

Place = tuple[int, int, int] | str
"""(crop, row, col) of a patch, or the name of a marker such as "newline"."""


@dataclass(frozen=True)
class PictureLayout:
    """Crops and positions of a picture.

    Attributes:
        crops: those that the encoder reads, in order; behind them may stand grids that are
            computed from several.
        places: one per position of the picture in the prompt.
        n_read: how many of the crops the encoder reads.
    """

    crops: tuple[Crop, ...]
    places: tuple[Place, ...]
    n_read: int

    @classmethod
    def in_turn(cls, crops: list[Crop]) -> PictureLayout:
        """One crop after the other, every position in reading order."""
        places = [place for at, crop in enumerate(crops) for place in crop.places(at)]
        return cls(tuple(crops), tuple(places), len(crops))


class LaidOutReader(ImageReader):
    """A reader whose family says the layout of a picture.

    Args:
        images: the checkpoint's own image processor, which makes the pixels.
        markers: per marker name its vector Float[d_model].
        options: of the image processor, beside its own settings.
    """

    one_grid = False

    def __init__(
        self, images: Any, markers: Mapping[str, torch.Tensor] | None = None, **options: Any
    ) -> None:
        self.images, self.markers, self.options = images, dict(markers or {}), options

    def layout(self, vision: Any, width: int, height: int, of: int = 1) -> PictureLayout:
        """The layout of a picture of (width, height), one `of` so many in its prompt."""
        raise NotImplementedError

    def count(self, vision: Any, picture: Image.Image, of: int = 1) -> int:
        return self.layout(vision, *picture.size, of).n_read

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        read = self.images(images=[[picture] * min(of, 2)], return_tensors="pt", **self.options)
        made = read["pixel_values"].flatten(0, -4)  # [picture, crop, 3, h, w], or without picture
        return list(made[: self.count(vision, picture, of)])

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        places = self.layout(vision, *picture.size, of).places
        return tuple(
            Marker(place, at, image)
            if isinstance(place, str)
            else Patch(place[1], place[2], image, place[0])
            for at, place in enumerate(places)
        )

    def vectors(
        self, projected: torch.Tensor, labels: tuple[Label, ...], picture: Image.Image
    ) -> torch.Tensor:
        n_crops, each, _ = projected.shape
        cols = 1 + max(one.col for one in labels if isinstance(one, Patch))
        names = list(self.markers)
        index = [
            one.crop * each + one.row * cols + one.col
            if isinstance(one, Patch)
            else n_crops * each + names.index(one.name)  # type: ignore[union-attr]
            for one in labels
        ]
        more = [vector.to(projected)[None] for vector in self.markers.values()]
        return torch.cat([projected.flatten(0, 1), *more])[index]

    def box(self, vision: Any, patch: Patch, width: int, height: int) -> Box:
        """The box of a patch; in a prompt of several pictures as in a prompt of its own."""
        crops = self.layout(vision, width, height).crops
        if not 0 <= patch.crop < len(crops):
            raise AddressError(
                f"There is no crop {patch.crop} of a picture: {len(crops)} are read."
            )
        return crops[patch.crop].cell(patch.row, patch.col)


def whole(width: int, height: int) -> Box:
    """The box of the whole picture."""
    return 0.0, 0.0, float(width), float(height)


def tiles(box: Box, rows: int, cols: int, grid: tuple[int, int]) -> list[Crop]:
    """A region cut into tiles of one size, row by row."""
    cut = Crop("tile", box, (rows, cols))
    return [Crop("tile", cut.cell(row, col), grid) for row in range(rows) for col in range(cols)]
