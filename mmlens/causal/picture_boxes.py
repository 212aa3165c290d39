"""Where patches lie on a picture, in its pixels; boxes are (x0, y0, x1, y1).

The model's `ImageReader` says it: a picture may be read whole, or cut into tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from mmlens.values.errors import PictureError
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1), whole pixels."""
_Edges = tuple[float, float, float, float]


def seen_box(model: HookedVLM, width: int, height: int) -> _Edges:
    """The part of a picture of (width, height) that the encoder sees, the hull of its patches. It
    may reach beyond the picture, where the encoder pads.
    """
    x0, y0, x1, y1 = zip(*_edges(model, width, height).values(), strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def patch_boxes(model: HookedVLM, width: int, height: int) -> dict[Patch, Box]:
    """The whole pixels of every patch of a picture, in reading order, beyond the picture too.

    Raises:
        PictureError: the model has no vision encoder.
    """
    found = {}
    for patch, edges in _edges(model, width, height).items():
        x0, y0, x1, y1 = (round(edge) for edge in edges)
        found[patch] = x0, y0, x1, y1
    return found


def _edges(model: HookedVLM, width: int, height: int) -> dict[Patch, _Edges]:
    if model.vision is None:
        raise PictureError(f"{model.name!r} has no vision encoder, so a picture has no patches.")
    reader, blank = model.image_reader, Image.new("1", (width, height))  # its size is what counts
    labels = reader.labels(model.vision, blank, 0)
    return {
        label: reader.box(model.vision, label, width, height)
        for label in labels
        if isinstance(label, Patch)
    }
