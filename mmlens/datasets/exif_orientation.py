"""Masks and boxes, turned as the picture that they belong to.

A camera stores a photo as the sensor lay, with a note (EXIF orientation, 1 to 8) on how it is to be
turned; `open_picture` turns it. Annotations count the pixels as they are stored, so they have to be
turned with it: by half a turn, or on a square by a quarter, nothing else would show the mistake.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

Box = tuple[float, float, float, float]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def stored(path: Path) -> tuple[tuple[int, int], int] | None:
    """(width, height) of a picture as it is stored, and its orientation; None: it has no header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever opens the picture is told
            with Image.open(path) as picture:
                turn = picture.getexif().get(_ORIENTATION, 1)
                return picture.size, turn if turn in _TURNS else 1
    except Exception:  # a plugin stumbles as it likes; opening the picture says what is wrong
        return None


def turned_mask(mask: Bool[Tensor, "h w"], orientation: int) -> Bool[Tensor, "h2 w2"]:
    """The mask of the upright picture."""
    if orientation not in _TURNS:
        return mask
    picture = Image.fromarray(mask.numpy().astype(np.uint8))
    return torch.from_numpy(np.array(picture.transpose(_TURNS[orientation])).astype(bool))


def turned_box(box: Box, orientation: int, width: float | int, height: float | int) -> Box:
    """The box in the upright picture.

    Args:
        box: x0, y0, x1, y1 in pixels as they are stored.
        orientation: of EXIF.
        width, height: of the picture as it is stored.
    """
    x0, y0, x1, y1 = box
    if orientation in (2, 3, 7, 8):  # left and right are exchanged
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):  # above and below
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if orientation >= 5 else (x0, y0, x1, y1)
