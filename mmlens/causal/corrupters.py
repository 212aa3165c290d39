"""Corruptions of pictures: functions Image -> Image, made from their options.

    another(other)   mean_picture(pictures)   grey(level)   blur(radius)   pixel_noise(std)
    erased(mask)     shuffled(model)          only_at(model, corrupter, patches)
    diffusion_noise(step)                     covered(model, share)

A corrupted picture keeps its size. Corrupters that need the patch grid take the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from mmlens.causal.pairs import Corrupter
from mmlens.causal.picture_boxes import Box, apart, patch_boxes
from mmlens.model.capabilities import needs
from mmlens.values.arguments import count, function, instance, number, several, shown
from mmlens.values.errors import AddressError, PictureError
from mmlens.values.labels import Patch
from mmlens.values.pictures import open_picture

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


def another(picture: Any) -> Corrupter:
    """Another picture, resized to the picture's size."""
    other = open_picture(picture)
    return lambda image: other.resize(open_picture(image).size, Image.Resampling.BICUBIC)


def mean_picture(pictures: Sequence[Any]) -> Corrupter:
    """The mean of several pictures, each resized to the picture's size.

    Raises:
        PictureError: no picture is given.
    """
    given = several(pictures, "pictures", least=0, error=PictureError)
    if not given:
        raise PictureError("The mean of no pictures does not exist: give at least one.")
    opened = [open_picture(picture) for picture in given]

    def corrupt(image: Image.Image) -> Image.Image:
        size = open_picture(image).size
        same = [np.asarray(p.resize(size, Image.Resampling.BICUBIC), float) for p in opened]
        return _picture(np.mean(same, axis=0))

    return corrupt


def grey(level: int | None = None) -> Corrupter:
    """One flat grey: the picture's own mean colour, or a level from 0 to 255."""
    level = None if level is None else count(level, "level", least=0, most=255)

    def corrupt(image: Image.Image) -> Image.Image:
        array = np.asarray(open_picture(image), float)
        colour = array.mean((0, 1)) if level is None else np.full(3, float(level))
        return _picture(np.broadcast_to(colour, array.shape))

    return corrupt


def blur(radius: float = 8.0) -> Corrupter:
    """Gaussian blur of a radius in pixels of the picture."""
    number(radius, "radius", least=0)
    return lambda image: open_picture(image).filter(ImageFilter.GaussianBlur(radius))


def pixel_noise(std: float = 0.3, seed: int = 0) -> Corrupter:
    """Gaussian noise on the pixels, its standard deviation as a share of full brightness."""
    number(std, "std", least=0)
    seed = count(seed, "seed", least=0)

    def corrupt(image: Image.Image) -> Image.Image:
        array = np.asarray(open_picture(image), float)
        return _picture(array + np.random.default_rng(seed).normal(0, std * 255, array.shape))

    return corrupt


def diffusion_noise(step: int = 500, seed: int = 0) -> Corrupter:
    """A picture after so many of a diffusion's 1000 steps, as in VCD (Leng et al. 2023).

        x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e,   abar_t = prod_i (1 - b_i),   e ~ N(0, 1)
        b_i = 1e-5 + (5e-3 - 1e-5) sigmoid(u_i),     u from -6 to 6

    x are pixels from -1 to 1, and the result is cut off there; the authors noise the pixels as the
    encoder normalizes them.
    """
    step, seed = count(step, "step", least=0, most=999), count(seed, "seed", least=0)
    rates = 1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-np.linspace(-6, 6, 1000)))
    kept = np.prod(1 - rates[: step + 1])

    def corrupt(image: Image.Image) -> Image.Image:
        pixels = np.asarray(open_picture(image), float) / 127.5 - 1
        noise = np.random.default_rng(seed).normal(size=pixels.shape)
        return _picture((np.sqrt(kept) * pixels + np.sqrt(1 - kept) * noise + 1) * 127.5)

    return corrupt


def erased(mask: Any, fill: Any = None) -> Corrupter:
    """The object under a mask painted over with the mean colour of the rest, or with a colour.

    Args:
        mask: Bool[height, width] of the picture's size.
        fill: (red, green, blue) from 0 to 255.
    """
    hole = np.asarray(mask.cpu() if isinstance(mask, torch.Tensor) else mask)
    if hole.dtype.kind not in "biuf":
        raise PictureError(f"mask={shown(mask)} is no mask: give Bool[height, width].")
    hole = hole > 0
    if fill is not None:
        fill = [number(c, "fill", least=0, most=255) for c in several(fill, "fill", least=3)]
        if len(fill) != 3:
            raise PictureError(f"fill={fill} is no colour: give (red, green, blue), 0 to 255.")

    def corrupt(image: Image.Image) -> Image.Image:
        array = np.asarray(open_picture(image), float).copy()
        if hole.shape != array.shape[:2]:
            raise PictureError(
                f"A mask of {hole.shape} does not fit a picture of {array.shape[0]} rows and"
                f" {array.shape[1]} columns."
            )
        rest = array[~hole] if (~hole).any() else array.reshape(-1, 3)
        array[hole] = rest.mean(0) if fill is None else fill
        return _picture(array)

    return corrupt


@needs("pictures")
def shuffled(model: HookedVLM, seed: int = 0) -> Corrupter:
    """The model's patches in random order: the same pixels, no objects."""
    seed = count(seed, "seed", least=0)

    def corrupt(image: Image.Image) -> Image.Image:
        image = open_picture(image)
        boxes = apart(_within(model, image).values())
        order = np.random.default_rng(seed).permutation(len(boxes))
        out, source = open_picture(image), open_picture(image)
        for target, taken in zip(boxes, order, strict=True):
            size = (target[2] - target[0], target[3] - target[1])
            if min(size) > 0:
                out.paste(source.crop(boxes[taken]).resize(size), target[:2])
        return out

    return corrupt


@needs("pictures")
def covered(model: HookedVLM, share: float = 0.5, seed: int = 0) -> Corrupter:
    """A random share of the model's patches painted over with the picture's mean colour."""
    number(share, "share", least=0, most=1)
    seed = count(seed, "seed", least=0)

    def corrupt(image: Image.Image) -> Image.Image:
        image = open_picture(image)
        boxes = apart(_within(model, image).values())
        order = np.random.default_rng(seed).permutation(len(boxes))
        out, flat = open_picture(image), grey()(image)
        for at in order[: round(share * len(boxes))]:
            out.paste(flat.crop(boxes[at]), boxes[at][:2])
        return out

    return corrupt


@needs("pictures")
def only_at(model: HookedVLM, corrupter: Corrupter, patches: Sequence[Patch]) -> Corrupter:
    """A corrupter applied at these patches only.

    Raises:
        AddressError: no patches; when used, a patch outside of the grid.
    """
    for patch in several(patches, "patches", error=AddressError):
        instance(patch, "patches", Patch, "Patches, as in [Patch(2, 1)]", error=AddressError)
    write = "a function of a PIL picture, as patching.grey() returns"
    function(corrupter, "corrupter", write, takes=1, error=PictureError)

    def corrupt(image: Image.Image) -> Image.Image:
        out, changed = open_picture(image), corrupter(image)
        boxes = _within(model, image)
        for patch in patches:
            here = replace(patch, image=0)
            if here not in boxes:
                last = max(boxes)
                raise AddressError(
                    f"Patch {patch} is outside the grid of {last.row + 1} x {last.col + 1}."
                )
            box = boxes[here]
            out.paste(changed.crop(box), box[:2])
        return out

    return corrupt


def _within(model: HookedVLM, image: Image.Image) -> dict[Patch, Box]:
    """The whole pixels of every patch, cut to the picture."""
    return {
        place: (max(0, x0), max(0, y0), min(image.width, x1), min(image.height, y1))
        for place, (x0, y0, x1, y1) in patch_boxes(model, image).items()
    }


def _picture(array: Any) -> Image.Image:
    return Image.fromarray(np.clip(np.round(array), 0, 255).astype(np.uint8))
