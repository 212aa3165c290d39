"""Regions of a picture as patches: those under a mask, and as many others as a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmlens.causal.picture_boxes import patch_boxes
from mmlens.model.capabilities import needs
from mmlens.values.arguments import count, number, several, shown
from mmlens.values.errors import AddressError, PictureError
from mmlens.values.labels import Patch
from mmlens.values.pictures import open_picture

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.model.hooked_model import HookedModel


@needs("pictures")
def patches_under(
    model: HookedModel, mask: Any, picture: Image.Image, share: float = 0.5, image: int = 0
) -> list[Patch]:
    """The patches of which at least a `share` is covered by a mask of the picture.

    Args:
        mask: Bool[height, width] (or anything NumPy converts to it), of the picture's size.
        image: which picture of the prompt it is.

    Raises:
        PictureError: the mask has another size.
    """
    number(share, "share", above=0, most=1)
    count(image, "image", least=0)
    picture = open_picture(picture)
    array = np.asarray(mask.cpu() if isinstance(mask, torch.Tensor) else mask)
    if array.dtype.kind not in "biuf":
        raise PictureError(f"mask={shown(mask)} is no mask: give Bool[height, width].")
    array = array > 0
    if array.shape != (picture.height, picture.width):
        raise PictureError(
            f"A mask of {array.shape} does not fit a picture of {picture.height} rows and"
            f" {picture.width} columns."
        )
    found = []
    for patch, (x0, y0, x1, y1) in patch_boxes(model, picture).items():
        cell = array[max(0, y0) : max(y1, y0 + 1), max(0, x0) : max(x1, x0 + 1)]
        if cell.size and cell.mean() >= share:
            found.append(replace(patch, image=image))
    return found


def other_patches(labels: Sequence[Any], chosen: Sequence[Patch], seed: int = 0) -> list[Patch]:
    """As many patches of the prompt that are not among the chosen: the control of a region.

    Raises:
        AddressError: there are too few others, or a chosen one is not among the labels.
    """
    labels, chosen = several(labels, "labels", least=0), several(chosen, "chosen", least=0)
    labels = [label for label in labels if isinstance(label, Patch)]
    gone = [patch for patch in chosen if not isinstance(patch, Patch) or patch not in labels]
    if gone:
        raise AddressError(
            f"Patch {shown(gone[0])} is not among these labels, so it has no control."
        )
    seed = count(seed, "seed", least=0)
    rest = [x for x in labels if x not in set(chosen)]
    if len(rest) < len(chosen):
        raise AddressError(
            f"There are {len(rest)} patches beside these {len(chosen)}, too few for a control."
        )
    drawn = np.random.default_rng(seed).permutation(len(rest))[: len(chosen)]
    return [rest[i] for i in sorted(drawn)]
