"""The marks of still pictures, and their SVG.

A figure becomes a list of marks in pixels (`drawing`); `to_svg` writes them as text, with
every word escaped, and `mmlens.view.still.raster` rasterizes it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from PIL import Image

SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


Number = float | int


@dataclass(frozen=True)
class Shape:
    """A filled polygon, or with `width` a line; points in pixels from the upper left corner."""

    points: Sequence[tuple[Number, Number]]
    colour: str
    width: Number = 0
    dash: str = ""
    opacity: Number = 1


@dataclass(frozen=True)
class Text:
    """One line of text; `across` and `down` anchor it at `x` and `y` (start, middle, end)."""

    x: Number
    y: Number
    text: str
    size: Number
    colour: str
    across: str = "start"
    down: str = "middle"
    bold: bool = False
    mono: bool = False
    turn: int = 0


@dataclass(frozen=True)
class Photo:
    """A picture stretched over a rectangle."""

    x: Number
    y: Number
    width: Number
    height: Number
    image: Image.Image


Mark = Shape | Text | Photo
Still = tuple[tuple[int, int], str, list[Mark], str]
"""Size in pixels, background, marks, title."""


def wide(text: str, size: Number, mono: bool = False) -> float:
    """The approximate width of a text in pixels."""
    narrow = sum(letter in "iljtf.,:;'|()[] " for letter in text)
    return size * (0.61 * len(text) if mono else 0.6 * (len(text) - narrow) + 0.36 * narrow)


def to_svg(size: tuple[int, int], page: str, marks: Sequence[Mark], title: str) -> str:
    """The marks as an SVG document."""
    width, height = size
    inner = "\n".join(_svg(mark) for mark in marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img" aria-label={quoteattr(title)}>\n'
        f'<rect width="{width}" height="{height}" fill="{page}"/>\n{inner}\n</svg>\n'
    )


def _svg(mark: Mark) -> str:
    if isinstance(mark, Photo):
        return (
            f'<image x="{mark.x:.2f}" y="{mark.y:.2f}" width="{mark.width:.2f}"'
            f' height="{mark.height:.2f}" preserveAspectRatio="none"'
            f' style="image-rendering:pixelated" href="{_address(mark.image)}"/>'
        )
    if isinstance(mark, Text):
        family = MONO if mark.mono else SANS
        down = {"start": 0.78, "middle": 0.35, "end": -0.22}[mark.down] * mark.size
        turn = f' transform="rotate({mark.turn} {mark.x:.2f} {mark.y:.2f})"' if mark.turn else ""
        bold = ' font-weight="600"' if mark.bold else ""
        return (
            f'<text x="{mark.x:.2f}" y="{mark.y + down:.2f}" font-family="{family}"'
            f' font-size="{mark.size:g}" fill="{mark.colour}" text-anchor="{mark.across}"'
            f' xml:space="preserve"{bold}{turn}>{escape(printable(mark.text))}</text>'
        )
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in mark.points)
    faint = f' opacity="{mark.opacity:g}"' if mark.opacity < 1 else ""
    if not mark.width:
        return f'<polygon points="{points}" fill="{mark.colour}"{faint}/>'
    dash = f' stroke-dasharray="{" ".join(map(str, DASHES[mark.dash]))}"' if mark.dash else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{mark.colour}"'
        f' stroke-width="{mark.width:g}" stroke-linejoin="round"{dash}{faint}/>'
    )


DASHES = {"dash": (7, 5), "dot": (2, 4), "dashdot": (7, 4, 2, 4), "longdash": (12, 6),
           "longdashdot": (12, 5, 2, 5)}  # fmt: skip


def printable(text: str) -> str:
    """The text without characters that XML does not allow."""
    return "".join(letter for letter in text if letter >= " " and letter not in "\ufffe\uffff")


def _address(image: Image.Image) -> str:
    buffer = io.BytesIO()
    (image if image.mode == "RGBA" else image.convert("RGB")).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
