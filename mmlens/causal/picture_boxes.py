"""Where patches lie on a picture, in its pixels; boxes are (x0, y0, x1, y1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmlens.model.image_reader import ImageReader
from mmlens.values.errors import PictureError
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.model.hooked_model import HookedModel
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


def patch_boxes(model: HookedModel, picture: Image.Image) -> dict[Patch, Box]:
    """The whole pixels of every patch of a picture, in the model's order, beyond the picture too.

    Raises:
        PictureError: the model has no vision encoder.
    """
    vision: Any = model.towers.get("vision")
    if vision is None:
        raise PictureError(f"{model.name!r} has no vision encoder, so a picture has no patches.")
    reader = getattr(model, "image_reader", None) or ImageReader()
    found = {}
    for label in reader.labels(vision, picture, 0):
        if isinstance(label, Patch):
            x0, y0, x1, y1 = (round(e) for e in reader.box(vision, label, *picture.size))
            found[label] = x0, y0, x1, y1
    return found


def apart(boxes: Iterable[Box]) -> list[Box]:
    """The smallest boxes that do not cover each other: of a thumbnail and its tiles, the tiles'."""
    kept: list[Box] = []
    order = list(boxes)
    for box in sorted(order, key=lambda b: (b[2] - b[0]) * (b[3] - b[1])):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not any(b[0] <= x < b[2] and b[1] <= y < b[3] for b in kept):
            kept.append(box)
    return [box for box in order if box in kept]
