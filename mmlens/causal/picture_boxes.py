"""Boxes of patches in pixels of the picture, (x0, y0, x1, y1).

The model's `ImageReader` gives them: a picture that is read in tiles has patches of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.model.image_reader import ImageReader
from mmlens.values.errors import PictureError
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1), whole pixels."""
_Edges = tuple[float, float, float, float]


def seen_box(model: HookedModel, width: int, height: int) -> _Edges:
    """The part of a picture of (width, height) that the encoder reads, the hull of its patches.

    It extends beyond the picture where the encoder pads.
    """
    blank = Image.new("1", (width, height))  # only its size is used
    found = _edges(model, blank).values() or [(0.0, 0.0, float(width), float(height))]
    x0, y0, x1, y1 = zip(*found, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def patch_boxes(model: HookedModel, picture: Image.Image) -> dict[Patch, Box]:
    """The whole pixels of every patch of a picture, in the model's order, also beyond the picture.

    Raises:
        PictureError: the model has no vision encoder.
    """
    found = {}
    for patch, edges in _edges(model, picture).items():
        x0, y0, x1, y1 = (round(edge) for edge in edges)
        found[patch] = x0, y0, x1, y1
    return found


def _edges(model: HookedModel, picture: Image.Image) -> dict[Patch, _Edges]:
    vision: Any = model.towers.get("vision")
    if vision is None:
        raise PictureError(f"{model.name!r} has no vision encoder, so a picture has no patches.")
    reader = getattr(model, "image_reader", None) or ImageReader()
    return {
        label: reader.box(vision, label, *picture.size)
        for label in reader.labels(vision, picture, 0)
        if isinstance(label, Patch)
    }


def apart(boxes: Iterable[Box]) -> list[Box]:
    """The smallest boxes without overlap: of a thumbnail and its tiles, those of the tiles."""
    kept: list[Box] = []
    order = list(boxes)
    for box in sorted(order, key=lambda b: (b[2] - b[0]) * (b[3] - b[1])):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not any(b[0] <= x < b[2] and b[1] <= y < b[3] for b in kept):
            kept.append(box)
    return [box for box in order if box in kept]
