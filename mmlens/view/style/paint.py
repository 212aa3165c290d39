"""Numbers painted over a grey photo: hue is the sign, opacity the size, NaN is hatched.

Patches are not interpolated by default; with `smooth` the values (not the colours) are interpolated
linearly between the centres of patches. A mask is drawn as its outline, dark beside light, so that
it is visible on any picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageFilter, ImageOps

from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError
from mmlens.view.style import theme

RAISES, LOWERS = (31, 119, 255), (255, 82, 46)
HEAT = ((87, 16, 110), (137, 34, 106), (188, 55, 84), (227, 89, 51), (249, 142, 9), (249, 201, 50))
OPACITY = 0.85
SIDE = 640

Box = tuple[float | int, float | int, float | int, float | int]
"""(x0, y0, x1, y1) in pixels of a picture."""


def span(
    grid: np.ndarray, top: float | int | None = None, *, signed: bool = False
) -> tuple[bool, float]:
    """(whether the values have a sign, the magnitude of full colour).

    Args:
        signed: they have one even where none is below 0.
    """
    finite = grid[np.isfinite(grid)]
    signed = signed or bool((finite < 0).any())
    return signed, float(top or 0) or float(np.abs(finite).max(initial=0)) or 1.0


def painted(
    photo: Image.Image,
    grid: np.ndarray,
    signed: bool,
    limit: float | int,
    box: Box,
    *,
    smooth: bool = False,
    mask: Any = None,
    side: int = SIDE,
) -> Image.Image:
    """The grey photo under the coloured patches, `side` pixels long.

    Args:
        grid: Float[row, col], covering `box` (pixels of the photo).
        mask: Bool[height, width] of the photo, outlined.

    Raises:
        AddressError: the mask has another size than the photo.
    """
    zoom = side / max(photo.size)
    size = (max(1, round(photo.width * zoom)), max(1, round(photo.height * zoom)))
    method = Image.Resampling.LANCZOS if zoom < 2 else Image.Resampling.NEAREST
    bare = photo.mode == "RGBA"  # paper, which stays transparent
    canvas = Image.new("RGBA", size) if bare else ImageOps.grayscale(photo).resize(size, method)
    canvas = canvas.convert("RGBA")
    left, top, right, bottom = whole(box, zoom)
    fine = finer(grid, (right - left, bottom - top)) if smooth else grid
    patches = Image.fromarray(colour(fine, signed, limit))
    layer = Image.new("RGBA", size)
    layer.paste(patches.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    _hatch(layer, grid, (left, top, right, bottom))
    done = Image.alpha_composite(canvas, layer)
    done = done if bare else done.convert("RGB")
    return done if mask is None else outlined(done, mask, photo.size)


def whole(box: Box, zoom: float | int) -> tuple[int, int, int, int]:
    """The edges of a box in whole pixels, enlarged; at least one pixel apart."""
    left, top, right, bottom = (round(edge * zoom) for edge in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def finer(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float[height, width]: the values, linear between the centres of patches; NaN counts as 0."""
    values = Image.fromarray(np.nan_to_num(grid).astype(np.float32))
    return np.asarray(values.resize(size, Image.Resampling.BILINEAR))


def outlined(picture: Image.Image, mask: Any, size: tuple[int, int]) -> Image.Image:
    """The picture with the outline of a mask: white inside, black outside.

    Args:
        size: (width, height) of the photo that the mask, Bool[height, width], belongs to.

    Raises:
        AddressError: the mask has another size.
    """
    values = _bools(mask)
    if values.shape != size[::-1]:
        raise AddressError(
            f"The mask is {values.shape}, and the picture has {size[1]} rows of {size[0]} pixels:"
            " give one value per pixel."
        )
    area = Image.fromarray(np.uint8(values) * 255).resize(picture.size, Image.Resampling.NEAREST)
    thick = max(1, max(picture.size) // 640) * 2 + 1
    inside = ImageChops.subtract(area, area.filter(ImageFilter.MinFilter(thick)))
    outside = ImageChops.subtract(area.filter(ImageFilter.MaxFilter(thick)), area)
    done = picture.copy()
    done.paste("black", mask=outside)
    done.paste("white", mask=inside)
    return done


def _bools(mask: Any) -> np.ndarray:
    """Where a mask is above 0.

    Raises:
        AddressError: it has no numbers.
    """
    try:
        values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    except ValueError:  # rows of different length
        values = np.array("rows")
    if values.dtype.kind not in "biuf":
        raise AddressError(f"mask={shown(mask)} is no mask: give Bool[height, width].")
    return values > 0


def colour(grid: np.ndarray, signed: bool, limit: float | int) -> np.ndarray:
    """UInt8[row, col, 4]: hue and opacity of every value; NaN is transparent."""
    part = np.clip(np.nan_to_num(np.abs(grid) / limit), 0, 1)
    if signed:
        rgb = np.where((grid >= 0)[..., None], RAISES, LOWERS)
    else:
        stops = np.linspace(0, 1, len(HEAT))
        rgb = np.stack([np.interp(part, stops, [c[i] for c in HEAT]) for i in range(3)], -1)
    alpha = OPACITY * part
    return np.concatenate([rgb, 255 * alpha[..., None]], -1).astype(np.uint8)


def ground(photo: Image.Image) -> int:
    """The mean grey (0 to 255) of a photo, under the overlay's colours; of paper the page's."""
    if photo.mode == "RGBA":
        return round(float(np.mean(ImageColor.getrgb(theme.colours()["page"]))))
    return round(float(np.asarray(ImageOps.grayscale(photo)).mean()))


def legend(signed: bool, under: int) -> list[list[Any]]:
    """The overlay's colours on the grey that is `under` them, as an opaque plotly scale."""
    values = np.linspace(-1 if signed else 0, 1, 33)
    rgba = colour(values[None], signed, 1.0)[0].astype(float)
    alpha = rgba[:, 3:] / 255
    mixed = (rgba[:, :3] * alpha + under * (1 - alpha)).round().astype(int)
    return [[i / 32, f"rgb({r},{g},{b})"] for i, (r, g, b) in enumerate(mixed)]


def paper(rows: int, cols: int) -> Image.Image:
    """Transparent paper for patches without a photo."""
    return Image.new("RGBA", (16 * cols, 16 * rows), (255, 255, 255, 0))


def _hatch(layer: Image.Image, grid: np.ndarray, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    rows, cols = grid.shape
    y, x = np.mgrid[0 : bottom - top, 0 : right - left]
    missing = np.isnan(grid)[y * rows // (bottom - top), x * cols // (right - left)]
    ink = np.zeros((*missing.shape, 4), np.uint8)
    ink[missing & ((x + y) % 12 < 3)] = (30, 30, 30, 200)
    ink[missing & ((x + y) % 12 >= 9)] = (255, 255, 255, 200)
    layer.paste(Image.alpha_composite(layer.crop(box), Image.fromarray(ink)), (left, top))
