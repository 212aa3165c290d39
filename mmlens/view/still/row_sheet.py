"""Views that are HTML as still pictures: rows of a name, words and small pictures.

Cards, galleries, made pictures, coloured words and attention are laid out by a browser; for a file
without one they become such rows, with the title and subtitle that the view has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from mmlens.view.still.marks import Mark, Number, Photo, Shape, Still, Text, wide
from mmlens.view.style import theme

WIDTH, _EDGE, _LEFT, _WORD = 900, 16, 176, 12.5


@dataclass(frozen=True)
class SheetRow:
    """One row.

    Attributes:
        name: at its left, or "".
        words: each with the colour behind it, or "", and how opaque that is.
        pictures: each with the line below it.
        side: pixels of a picture's width.
    """

    name: str = ""
    words: Sequence[tuple[str, str, float]] = ()
    pictures: Sequence[tuple[Image.Image, str]] = ()
    side: int = 104


def sheet(title: str, subtitle: str, rows: Sequence[SheetRow]) -> Still:
    """Rows under a title, in the colours of the theme in use."""
    c, marks, y = theme.colours(), list[Mark](), 14.0 + 8
    for line in theme.wrapped(title, (WIDTH - 2 * _EDGE) / 8.6):
        marks.append(Text(_EDGE, y, line, 16, c["ink"], bold=True))
        y += 21
    for line in theme.wrapped(subtitle, (WIDTH - 2 * _EDGE) / 6.5):
        marks.append(Text(_EDGE, y + 1, line, 12.5, c["muted"]))
        y += 16
    y += 6
    for row in rows:
        marks.append(Shape([(_EDGE, y), (WIDTH - _EDGE, y)], c["line"], 1))
        y = _row(row, y + 12, marks) + 10
    return (WIDTH, round(y + 6)), c["page"], marks, title


def _row(row: SheetRow, top: Number, marks: list[Mark]) -> Number:
    """The row's marks are added; where it ends."""
    c, left, y = theme.colours(), _EDGE, top
    if row.name:
        marks.append(Text(left, y + 8, row.name, 14, c["ink"], bold=True, mono=True))
        y += 24
    right = _EDGE + _LEFT if row.pictures else WIDTH - _EDGE
    y = _words(row, (left, right, y), marks)
    return max(y, _pictures(row, top, marks))


def _words(row: SheetRow, place: tuple[Number, Number, Number], marks: list[Mark]) -> Number:
    left, right, y = place
    c, x = theme.colours(), left
    for text, colour, opacity in row.words:
        long = wide(text, _WORD, mono=True) + 8
        if x > left and x + long > right:
            x, y = left, y + 22
        corners = [(x, y), (x + long, y), (x + long, y + 18), (x, y + 18)]
        if colour:
            marks.append(Shape(corners, colour, opacity=opacity))
        else:
            marks.append(Shape([*corners, corners[0]], c["line"], 1))
        marks.append(Text(x + 4, y + 9, text, _WORD, c["ink"], mono=True))
        x += long + 5
    return y + 22 if row.words else y


def _pictures(row: SheetRow, top: Number, marks: list[Mark]) -> Number:
    start = _EDGE + (_LEFT + 14 if row.name or row.words else 0)
    x, y, tall = start, top, 0.0
    for image, told in row.pictures:
        high = row.side * image.height / image.width
        if x > start and x + row.side > WIDTH - _EDGE:
            x, y, tall = start, y + tall + 24, 0.0
        marks.append(Photo(x, y, row.side, high, image))
        marks.append(Text(x, y + high + 9, told, 12, theme.colours()["muted"]))
        x, tall = x + row.side + 8, max(tall, high)
    return y + tall + 20 if row.pictures else top
