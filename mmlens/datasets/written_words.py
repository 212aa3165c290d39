"""Words as pictures: black on white for probing units, and written over photos to attack a model.

    written("dog", (224, 224))                   a word alone, at a size and a place
    written_over(photo, "pizza")                 the typographic attack of Goh et al. (2021)
    pixel_cover(photo, attacked)                 the share of pixels that it changed

Both draw in DejaVu Sans with Pillow's basic layout, so a word looks alike on every machine. The
attack is that of "Multimodal Neurons in Artificial Neural Networks" (Distill, 2021), section on
typographic attacks: the same word at eight places of a picture of 288 x 288, white with a black
rim. The paper gives neither font nor coordinates; these were found by fitting its published
example, whose eight places they meet exactly, and they give the pixel cover of its table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from mmlens.values.arguments import count, number, several, text
from mmlens.values.errors import ArgumentError, PictureError
from mmlens.values.pictures import open_picture

ATTACK_SIZE = 288
"""Side of the paper's pictures, in pixels: the input of CLIP RN50x4."""
ATTACK_PLACES = (
    (22, 22), (72, 47), (22, 72), (72, 97), (122, 122), (172, 147), (122, 172), (172, 197),
)  # fmt: skip
"""(x, y) of the upper left corner of each word."""
WIDEST = 0.94
"""Share of a picture's width that a word takes at most; a longer one is drawn smaller."""


@lru_cache(maxsize=1)
def _font_file() -> bytes:
    return files("mmlens").joinpath("data/DejaVuSans.ttf").read_bytes()


@lru_cache(maxsize=256)
def font(size: int) -> Any:
    """DejaVu Sans at a size in pixels, with basic layout."""
    return ImageFont.truetype(BytesIO(_font_file()), size, layout_engine=ImageFont.Layout.BASIC)


def written(
    word: str,
    canvas: tuple[int, int],
    *,
    size: float = 0.2,
    at: tuple[float, float] = (0.5, 0.5),
    ink: Any = "black",
    paper: Any = "white",
) -> Image.Image:
    """A word alone on a blank picture.

    Args:
        canvas: (width, height) of the picture in pixels.
        size: of the font, as a share of the picture's height; a word that would be too wide is
            drawn as large as fits.
        at: (x, y) within the room that the word leaves: (0, 0) is the upper left corner, (0.5, 0.5)
            the middle, (1, 1) the lower right corner.
        ink, paper: colours as Pillow reads them.

    Raises:
        ArgumentError: no text, no such size or place.
    """
    text(word, "word", empty=False)
    width, height = (count(side, "canvas", most=10_000) for side in _pair(canvas, "canvas"))
    where = [number(one, "at", least=0, most=1) for one in _pair(at, "at")]
    points = max(1, round(number(size, "size", above=0, most=1) * height))
    left, top, right, bottom = font(points).getbbox(word)
    if right - left > WIDEST * width:
        points = max(1, int(points * WIDEST * width / (right - left)))
        left, top, right, bottom = font(points).getbbox(word)
    picture = Image.new("RGB", (width, height), colour(paper, "paper"))
    x = where[0] * (width - (right - left)) - left
    y = where[1] * (height - (bottom - top)) - top
    ImageDraw.Draw(picture).text(
        (round(x), round(y)), word, fill=colour(ink, "ink"), font=font(points)
    )
    return picture


def written_over(
    picture: Any,
    word: str,
    *,
    size: int = 20,
    stroke: int = 2,
    at: Sequence[tuple[int, int]] = ATTACK_PLACES,
) -> Image.Image:
    """A picture with a word written over it, white with a black rim.

    Args:
        picture: of any size; `attack_canvas` makes one of the paper's.
        size: of the font, in pixels.
        stroke: width of the rim, in pixels.
        at: (x, y) of the upper left corner of each copy, in pixels.

    Raises:
        ArgumentError: no text, no such size or place. PictureError: no picture.
    """
    text(word, "word", empty=False)
    size, stroke = count(size, "size", most=10_000), count(stroke, "stroke", least=0, most=100)
    places = [_pair(one, "at") for one in several(at, "at")]
    drawn = _rgb(picture).copy()
    pen = ImageDraw.Draw(drawn)
    for x, y in places:
        pen.text(
            (count(x, "at", least=0), count(y, "at", least=0)), word, fill="white",
            font=font(size), stroke_width=stroke, stroke_fill="black",
        )  # fmt: skip
    return drawn


def attack_canvas(picture: Any, side: int = ATTACK_SIZE) -> Image.Image:
    """The middle square of a picture, resized to the paper's 288 x 288."""
    image, side = _rgb(picture), count(side, "side", most=10_000)
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    box = (left, top, left + short, top + short)
    return image.crop(box).resize((side, side), Image.Resampling.BICUBIC)


def pixel_cover(before: Any, after: Any) -> float:
    """The share of pixels, 0 to 1, that differ in any channel (the paper's L0 norm).

    Raises:
        PictureError: no pictures, or of different sizes.
    """
    one, other = _rgb(before), _rgb(after)
    if one.size != other.size:
        raise PictureError(
            f"Pictures of {one.size} and {other.size} pixels have no pixel cover: give two of one"
            " size."
        )
    return float((np.asarray(one) != np.asarray(other)).any(-1).mean())


def colour(value: Any, name: str) -> tuple[int, int, int]:
    """A colour as (red, green, blue), from a name such as "red" or "#c03", or from three numbers.

    Raises:
        ArgumentError: there is no such colour.
    """
    try:
        if isinstance(value, str):
            red, green, blue, *_ = ImageColor.getrgb(value)
        else:
            red, green, blue = (count(v, name, least=0, most=255) for v in several(value, name))
    except ValueError as error:  # an ArgumentError is one
        raise ArgumentError(
            f"{name}={value!r} is no colour: write one as 'red', '#c03' or (200, 0, 50)."
        ) from error
    return red, green, blue


def _rgb(picture: Any) -> Image.Image:
    return open_picture(picture)


def _pair(value: Any, name: str) -> list[Any]:
    two = several(value, name)
    if len(two) != 2:
        raise ArgumentError(f"{name}={value!r}: write two numbers, (x, y).")
    return two
