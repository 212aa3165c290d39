"""The marks of a still picture as a PDF of vectors, with its letters embedded.

Letters are those of DejaVu Sans, which mmlens brings, so that a PDF looks the same everywhere.
"""

from __future__ import annotations

import re
from importlib.resources import as_file, files
from typing import Any

from mmlens.view.still.marks import DASHES, Mark, Photo, Shape, Still, Text, printable

_NUMBER = re.compile(r"[\d.]+")


def to_pdf(drawn: Still) -> bytes:
    """A PDF of one page, a point per pixel."""
    from fpdf import FPDF

    size, page, marks, title = drawn
    pdf = FPDF(unit="pt", format=size)
    pdf.set_auto_page_break(False)
    pdf.set_title(printable(title))
    with as_file(files("mmlens.data").joinpath("DejaVuSans.ttf")) as font:
        pdf.add_font("sans", fname=font)
        pdf.add_page()
        pdf.set_fill_color(*_rgba(page)[:3])
        pdf.rect(0, 0, *size, style="F")
        for mark in marks:
            _draw(pdf, mark)
        return bytes(pdf.output())


def _draw(pdf: Any, mark: Mark) -> None:
    if isinstance(mark, Photo):
        pdf.image(mark.image, mark.x, mark.y, mark.width, mark.height)
    elif isinstance(mark, Text):
        _text(pdf, mark)
    else:
        _shape(pdf, mark)


def _shape(pdf: Any, mark: Shape) -> None:
    red, green, blue, alpha = _rgba(mark.colour)
    opacity = alpha * float(mark.opacity)
    points = [(float(x), float(y)) for x, y in mark.points]
    with pdf.local_context(fill_opacity=opacity, stroke_opacity=opacity):
        if not mark.width:
            pdf.set_fill_color(red, green, blue)
            pdf.polygon(points, style="F")
            return
        pdf.set_draw_color(red, green, blue)
        pdf.set_line_width(float(mark.width))
        if mark.dash:
            pdf.set_dash_pattern(*DASHES[mark.dash][:2])
        pdf.polyline(points, style="D")


def _text(pdf: Any, mark: Text) -> None:
    text = printable(mark.text)
    if not text:
        return
    pdf.set_font("sans", size=float(mark.size))
    red, green, blue, _ = _rgba(mark.colour)
    pdf.set_text_color(red, green, blue)
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.across] * pdf.get_string_width(text)
    down = {"start": 0.78, "middle": 0.35, "end": -0.22}[mark.down] * mark.size
    with pdf.rotation(-mark.turn, x=float(mark.x), y=float(mark.y)):
        if mark.bold:  # drawn with a thin outline, since there is one weight
            pdf.set_draw_color(red, green, blue)
            with pdf.local_context(text_mode="FILL_STROKE", line_width=0.35):
                pdf.text(mark.x - shift, mark.y + down, text)
        else:
            pdf.text(mark.x - shift, mark.y + down, text)


def _rgba(colour: str) -> tuple[int, int, int, float]:
    """The parts of `#rrggbb`, `rgb(...)` or `rgba(...)`; a colour's name by Pillow."""
    if colour.startswith("rgb"):
        parts = [float(one) for one in _NUMBER.findall(colour)]
        return round(parts[0]), round(parts[1]), round(parts[2]), [*parts, 1.0][3]
    from PIL import ImageColor

    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue, 1.0
