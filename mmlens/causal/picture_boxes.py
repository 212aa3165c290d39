"""Where patches lie on a picture, in its pixels; boxes are (x0, y0, x1, y1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.errors import PictureError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1), whole pixels."""


def seen_box(model: HookedVLM, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a picture of (width, height) that the encoder sees, from its first patch to its
    last. It may reach beyond the picture, where the encoder pads.
    """
    rows, cols = model.vision.grid
    left, top, _, _ = model.vision.box(0, 0, width, height)
    _, _, right, bottom = model.vision.box(rows - 1, cols - 1, width, height)
    return left, top, right, bottom


def patch_boxes(model: HookedVLM, width: int, height: int) -> dict[tuple[int, int], Box]:
    """(row, col) -> the whole pixels of that patch, in reading order, beyond the picture too.

    Raises:
        PictureError: the model has no vision encoder.
    """
    if model.vision is None:
        raise PictureError(f"{model.name!r} has no vision encoder, so a picture has no patches.")
    rows, cols = model.vision.grid
    found = {}
    for place in ((row, col) for row in range(rows) for col in range(cols)):
        x0, y0, x1, y1 = (round(edge) for edge in model.vision.box(*place, width, height))
        found[place] = x0, y0, x1, y1
    return found
