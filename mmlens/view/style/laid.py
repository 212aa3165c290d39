"""Where the patches of a result lie on the photo: one grid, tiles merged, or one crop.

A picture that was read in several crops is drawn in its own pixels: its tiles as one grid over the
whole, or the thumbnail, or one tile. Where the crops lie is in the result's `about`
(`mmlens.values.crops`). Positions without a place in the picture (queries) are a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mmlens.values.arguments import shown
from mmlens.values.crops import Crop, unpacked
from mmlens.values.errors import AddressError
from mmlens.values.labels import Marker, Patch
from mmlens.view.style.paint import Box

TILE = "tile"
_WIDE = 8
"""Positions of a list in a row."""


@dataclass(frozen=True)
class Laid:
    """One grid to draw.

    Attributes:
        name: "picture", "tiles", "thumbnail", "crop 2", or "list" for positions without a place.
        shape: rows and columns.
        part: (x0, y0, x1, y1) that the grid covers, in parts of the picture's sides; None where
            the result does not say.
        cells: from the index on the axis to (row, column).
    """

    name: str
    shape: tuple[int, int]
    part: Box | None
    cells: Mapping[int, tuple[int, int]]

    def grid(self, values: np.ndarray) -> np.ndarray:
        """Float[row, col]: the values in their cells; NaN where there is none."""
        grid = np.full(self.shape, np.nan)
        for index, cell in self.cells.items():
            grid[cell] = values[index]
        return grid

    def box(self, photo: Image.Image) -> Box | None:
        """The pixels of a photo that the grid covers."""
        if self.part is None:
            return None
        x0, y0, x1, y1 = self.part
        return x0 * photo.width, y0 * photo.height, x1 * photo.width, y1 * photo.height


def lay(
    labels: Sequence[Any],
    about: Mapping[str, Any],
    name: str,
    *,
    image: int = 0,
    crop: str | int | None = None,
) -> Laid:
    """The grid of one picture's patches.

    Args:
        labels: of the axis.
        about: of the result.
        name: the result, for error messages.
        image: which picture of the prompt.
        crop: "tiles" (all, merged), "thumbnail", "picture", or the number of one crop; by default
            the tiles, or what there is instead.

    Raises:
        AddressError: no patch of this picture, no such crop, or several crops of a result that
            does not say where they lie.
    """
    here = _patches(labels, image)
    if not here:
        raise AddressError(f"There is no patch of picture {image} in {name}.")
    numbers = sorted({patch.crop for patch in here.values()})
    known = _known(here, about, image)
    if isinstance(crop, int) and not isinstance(crop, bool) and crop in numbers:
        some = {i: patch for i, patch in here.items() if patch.crop == crop}
        return _one(some, known, f"crop {crop}" if len(numbers) > 1 else "picture")
    if known is None and len(numbers) > 1 and crop is None:
        raise AddressError(
            f"{name} holds patches of {len(numbers)} crops of a picture, each with a grid of its"
            f" own, and does not say where they lie: choose one, as in crop={numbers[0]}."
        )
    found = _levels(here, known)
    if crop is None:
        return found[0]
    for one in found:
        if one.name == crop:
            return one
    names = ", ".join(repr(one.name) for one in found)
    raise AddressError(
        f"crop={shown(crop)}: {name} holds {names}, or write the number of one of its crops,"
        f" {numbers[0]} to {numbers[-1]}."
    )


def levels(labels: Sequence[Any], about: Mapping[str, Any], image: int = 0) -> list[Laid]:
    """Every grid of a picture: the tiles merged, then the thumbnail; a list without patches.

    Raises:
        AddressError: no position of this picture.
    """
    here = _patches(labels, image)
    if here:
        return _levels(here, _known(here, about, image))
    places = [i for i, one in enumerate(labels) if isinstance(one, Marker) and one.image == image]
    if not places:
        raise AddressError(
            f"There is no position of picture {image} here: narrow the maps to its patches, with"
            " .sel(pos=Patch)."
        )
    cells = {index: divmod(at, _WIDE) for at, index in enumerate(places)}
    rows = -(-len(places) // _WIDE)
    return [Laid("list", (rows, min(len(places), _WIDE)), None, cells)]


_Known = tuple[tuple[int, int], list[Crop]]


def _patches(labels: Iterable[Any], image: int) -> dict[int, Patch]:
    return {i: one for i, one in enumerate(labels) if isinstance(one, Patch) and one.image == image}


def _known(here: Mapping[int, Patch], about: Mapping[str, Any], image: int) -> _Known | None:
    """The crops, if the patches are theirs; a site of the encoder may have a finer grid."""
    found = unpacked(about, image)
    if found is None:
        return None
    crops = found[1]
    fits = all(
        one.crop < len(crops) and one.row < crops[one.crop].grid[0]
        and one.col < crops[one.crop].grid[1]
        for one in here.values()
    )  # fmt: skip
    return found if fits else None


def _levels(here: Mapping[int, Patch], known: _Known | None) -> list[Laid]:
    groups: dict[str, dict[int, Patch]] = {}
    several = len({one.crop for one in here.values()}) > 1
    for index, patch in here.items():
        name = known[1][patch.crop].name if known else f"crop {patch.crop}"
        name = f"{name}s" if name == TILE else name if known or several else "picture"
        groups.setdefault(name, {})[index] = patch
    made = [_one(some, known, name) for name, some in groups.items()]
    return sorted(made, key=lambda one: one.name != f"{TILE}s")


def _one(some: Mapping[int, Patch], known: _Known | None, name: str) -> Laid:
    """Patches of one crop, or of tiles that lie side by side, as one grid."""
    if known is None:
        shape = 1 + max(p.row for p in some.values()), 1 + max(p.col for p in some.values())
        return Laid(name, shape, None, {i: (p.row, p.col) for i, p in some.items()})
    (width, height), crops = known
    used = [crops[number] for number in sorted({patch.crop for patch in some.values()})]
    x0, y0 = min(one.box[0] for one in used), min(one.box[1] for one in used)
    x1, y1 = max(one.box[2] for one in used), max(one.box[3] for one in used)
    left, top, right, bottom = used[0].cell(0, 0)
    cols, rows = round((x1 - x0) / (right - left)), round((y1 - y0) / (bottom - top))
    wide, high = (x1 - x0) / cols, (y1 - y0) / rows
    cells = {}
    for index, patch in some.items():
        left, top, right, bottom = crops[patch.crop].cell(patch.row, patch.col)
        col, row = (left - x0) / wide, (top - y0) / high
        if abs((right - left) / wide - 1) + abs(col - round(col)) + abs(row - round(row)) > 0.01:
            raise AddressError(
                f"The {name} of this picture are no one grid: choose one, as in crop={patch.crop}."
            )
        cells[index] = round(row), round(col)
    part = x0 / width, y0 / height, x1 / width, y1 / height
    return Laid(name, (rows, cols), part, cells)
