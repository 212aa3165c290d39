"""Marks painted with Pillow, where there is no browser: at twice the size and then reduced.

Letters come from a font of the system, or from the one that Pillow brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

from mmlens.view.still.marks import DASHES, Mark, Number, Photo, Shape, Text, printable


def to_picture(
    size: tuple[int, int], page: str, marks: Sequence[Mark], scale: Number
) -> Image.Image:
    """The marks as a picture, `scale` pixels per pixel of the figure."""
    fine = 2 * scale  # painted twice as large and reduced: Pillow draws hard edges
    canvas = Image.new("RGBA", (round(size[0] * fine), round(size[1] * fine)), page)
    for mark in marks:
        if isinstance(mark, Photo):
            box = (max(1, round(mark.width * fine)), max(1, round(mark.height * fine)))
            image = mark.image.convert("RGB").resize(box, Image.Resampling.NEAREST)
            canvas.paste(image, (round(mark.x * fine), round(mark.y * fine)))
        elif isinstance(mark, Text):
            _write(canvas, mark, fine)
        else:
            _draw(canvas, mark, fine)
    done = (round(size[0] * scale), round(size[1] * scale))
    return canvas.convert("RGB").resize(done, Image.Resampling.LANCZOS)


def _draw(canvas: Image.Image, mark: Shape, fine: Number) -> None:
    points = [(x * fine, y * fine) for x, y in mark.points]
    *rgb, alpha = ImageColor.getcolor(_hex(mark.colour), "RGBA")  # type: ignore[misc]
    ink = (*rgb, round(alpha * mark.opacity))
    layer, left, top = canvas, 0, 0
    if ink[3] < 255:  # Pillow draws over, and does not mix: a small sheet of its own is mixed in
        pad = math.ceil(mark.width * fine) + 1
        left = max(0, math.floor(min(x for x, _ in points)) - pad)
        top = max(0, math.floor(min(y for _, y in points)) - pad)
        right = min(canvas.width, math.ceil(max(x for x, _ in points)) + pad)
        bottom = min(canvas.height, math.ceil(max(y for _, y in points)) + pad)
        layer = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)))
        points = [(x - left, y - top) for x, y in points]
    pen = ImageDraw.Draw(layer)
    if not mark.width:
        pen.polygon(points, fill=ink)
    else:
        wide_line = max(1, round(mark.width * fine))
        for piece in _pieces(points, [n * fine for n in DASHES.get(mark.dash, ())]):
            pen.line(piece, fill=ink, width=wide_line, joint="curve")
    if layer is not canvas:
        canvas.alpha_composite(layer, (left, top))


def _hex(colour: str) -> str:
    """Pillow reads rgba(...) with an alpha of 0 to 255."""
    if not colour.startswith("rgba("):
        return colour
    r, g, b, a = (float(part) for part in colour[5:-1].split(","))
    return f"#{round(r):02x}{round(g):02x}{round(b):02x}{round(255 * a):02x}"


def _pieces(
    points: list[tuple[Number, Number]], dashes: list[Number]
) -> list[list[tuple[Number, Number]]]:
    """A line as the pieces of its dashes; whole when there are none."""
    if not dashes:
        return [points]
    pieces, at, left, on = [], 0, dashes[0], True
    for (x0, y0), (x1, y1) in pairwise(points):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > 1e-9:
            step = min(left, length - done)
            part = [((x0 + (x1 - x0) * t / length), (y0 + (y1 - y0) * t / length))
                    for t in (done, done + step)]  # fmt: skip
            if on:
                pieces.append(part)
            done, left = done + step, left - step
            if left <= 1e-9:
                at, on = (at + 1) % len(dashes), not on
                left = dashes[at]
    return pieces


def _write(canvas: Image.Image, mark: Text, fine: Number) -> None:
    font = _font(mark.size * fine, mark.mono, mark.bold)
    text = printable(mark.text)
    if not text:
        return
    left, _, right, _ = font.getbbox(text, anchor="ls")
    pad = 2 + math.ceil(max(-left, 0))
    tall = mark.size * fine
    layer = Image.new("RGBA", (math.ceil(right) + 2 * pad, math.ceil(1.5 * tall)))
    ImageDraw.Draw(layer).text((pad, 1.1 * tall), text, _hex(mark.colour), font, "ls")
    width = right
    across = {"start": 0.0, "middle": width / 2, "end": float(width)}[mark.across] + pad
    down = {"start": 0.32, "middle": 0.75, "end": 1.32}[mark.down] * tall
    if mark.turn:
        layer, across, down = _turned(layer, mark.turn, across, down)
    canvas.alpha_composite(*_inside(canvas, layer, mark.x * fine - across, mark.y * fine - down))


def _turned(
    layer: Image.Image, degrees: int, x: Number, y: Number
) -> tuple[Image.Image, Number, Number]:
    """The layer turned clockwise, and where its point (x, y) has come to."""
    turned = layer.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    angle = math.radians(degrees)
    dx, dy = x - layer.width / 2, y - layer.height / 2
    new_x = dx * math.cos(angle) - dy * math.sin(angle) + turned.width / 2
    return turned, new_x, dx * math.sin(angle) + dy * math.cos(angle) + turned.height / 2


def _inside(
    canvas: Image.Image, layer: Image.Image, x: Number, y: Number
) -> tuple[Image.Image, tuple[int, int]]:
    """The part of a layer that lies on the canvas, and where."""
    left, top = round(x), round(y)
    cut = (max(0, -left), max(0, -top), layer.width, layer.height)
    if cut[0] >= cut[2] or cut[1] >= cut[3] or left >= canvas.width or top >= canvas.height:
        return Image.new("RGBA", (1, 1)), (0, 0)
    return layer.crop(cut), (max(0, left), max(0, top))


_FILES = {
    (False, False): ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"),
    (False, True): ("DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf", "Arial Bold.ttf"),
    (True, False): ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf", "Menlo.ttc", "consola.ttf"),
}


@lru_cache(64)
def _font(size: Number, mono: bool, bold: bool) -> Any:
    """A font of the system, or the one that Pillow brings."""
    for name in _FILES[mono, bold and not mono]:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
