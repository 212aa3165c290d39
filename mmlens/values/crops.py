"""Crops of a picture: what an encoder reads at once, and where it lies in the picture.

A result about pictures that are read in several crops carries them in its `about`, so that it can
be drawn in place without the model: per picture its size and its crops, as plain data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmlens.values.errors import AddressError

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the picture; beyond it where a crop is padded."""
CROPS = "crops"
"""The key of `about`."""


@dataclass(frozen=True)
class Crop:
    """What the encoder reads at once.

    Attributes:
        name: "picture" (the whole, as the encoder takes it), "tile", or "thumbnail" (the whole,
            beside its tiles).
        box: where it lies.
        grid: rows and columns of its positions in the prompt.
    """

    name: str
    box: Box
    grid: tuple[int, int]

    def cell(self, row: int, col: int) -> Box:
        """The box of one position.

        Raises:
            AddressError: there is none.
        """
        (rows, cols), (x0, y0, x1, y1) = self.grid, self.box
        if not (0 <= row < rows and 0 <= col < cols):
            raise AddressError(f"Patch ({row}, {col}) is outside the grid of {rows} x {cols}.")
        wide, high = (x1 - x0) / cols, (y1 - y0) / rows
        return x0 + col * wide, y0 + row * high, x0 + (col + 1) * wide, y0 + (row + 1) * high

    def places(self, number: int) -> list[tuple[int, int, int]]:
        """All its positions in reading order; it is the crop of this number."""
        rows, cols = self.grid
        return [(number, row, col) for row in range(rows) for col in range(cols)]


def packed(size: tuple[int, int], crops: Sequence[Crop]) -> dict[str, Any]:
    """The crops of a picture of (width, height) as plain data."""
    rows = [[one.name, list(one.box), list(one.grid)] for one in crops]
    return {"size": list(size), CROPS: rows}


def unpacked(about: Mapping[str, Any], image: int) -> tuple[tuple[int, int], list[Crop]] | None:
    """The size of one picture of a result and its crops; None where it has one grid."""
    known = about.get(CROPS) or ()
    if not 0 <= image < len(known):
        return None
    width, height = known[image]["size"]
    rows = known[image][CROPS]
    return (width, height), [Crop(name, tuple(box), tuple(grid)) for name, box, grid in rows]


def told(known: Sequence[Mapping[str, Any]]) -> str:
    """The crops of all pictures as one line: `thumbnail 4 x 4, 4 tiles 4 x 4`."""
    lines = []
    for picture in known:
        found = Counter((name, *grid) for name, _, grid in picture[CROPS])
        parts = [
            f"{f'{n} {name}s' if n > 1 else name} {rows} x {cols}"
            for (name, rows, cols), n in found.items()
        ]
        lines.append(", ".join(parts))
    return "; ".join(lines)
