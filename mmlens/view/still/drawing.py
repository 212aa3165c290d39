"""A plotly figure as a still picture, without a browser: SVG, and that as PNG.

    view.save(figure, "paper.svg")        # or .png

It supports the figures of mmlens: heat maps with and without words in their cells, pictures under
patches, bars, lines, bands, points, colour bars, legends, notes. A figure with other traces is
refused instead of being drawn without them.
"""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from mmlens.values.errors import CapabilityError
from mmlens.view.still import frame
from mmlens.view.still.categories import numbered
from mmlens.view.still.frame import Axis, drawn
from mmlens.view.still.keys import bar_room, bars_of_colour, dash_of, legend, legend_room
from mmlens.view.still.marks import Mark, Number, Photo, Shape, Text, to_svg
from mmlens.view.still.raster import to_picture
from mmlens.view.still.traces import trace_marks, values_on

KNOWN = ("heatmap", "bar", "scatter")


def svg(figure: Any) -> str:
    """A figure as an SVG document.

    Raises:
        CapabilityError: the figure has something that only plotly.js draws.
    """
    size, page, marks, title = still(figure)
    return to_svg(size, page, marks, title)


def png(figure: Any, scale: float | int = 2) -> Image.Image:
    """A figure as a picture of `scale` pixels per pixel.

    Raises:
        CapabilityError: the figure has something that only plotly.js draws.
    """
    return to_picture(svg(figure), scale)


def still(figure: Any) -> tuple[tuple[int, int], str, list[Mark], str]:
    """Size, background, marks and title of a figure."""
    other = [trace.type for trace in figure.data if trace.type not in KNOWN]
    if other:
        raise CapabilityError(
            f"A still picture shows heat maps, bars, lines, points and pictures, and this figure"
            f" has a {other[0]!r}: write it as .html."
        )
    figure = numbered(figure)
    given = figure.layout.template.layout
    ink = {
        "page": given.paper_bgcolor or "#ffffff",
        "ink": given.font.color or "#1b1f24",
        "line": given.xaxis.gridcolor or "#d9dee5",
        "zero": given.xaxis.zerolinecolor or "#5b6470",
    }
    size = (int(figure.layout.width or 700), int(figure.layout.height or 450))
    axes = _placed(figure, size)
    marks: list[Mark] = []
    for image in figure.layout.images:
        marks.append(_photo(image, axes[image.xref], axes[image.yref]))
    for x, y in _pairs(figure):
        marks += drawn(axes[x], axes[y], ink) + drawn(axes[y], axes[x], ink)
    for trace in figure.data:
        marks += trace_marks(trace, axes[trace.xaxis or "x"], axes[trace.yaxis or "y"], figure, ink)
    marks += _zero_lines(figure, axes, ink) + _notes(figure, axes, ink)
    marks += bars_of_colour(figure, axes, ink) + legend(figure, size, axes, ink)
    marks += _head(figure, ink)
    return size, ink["page"], marks, " ".join(frame.lines(figure.layout.title.text))


def _pairs(figure: Any) -> list[tuple[str, str]]:
    """The pairs of axes that have data."""
    return list(dict.fromkeys((t.xaxis or "x", t.yaxis or "y") for t in figure.data))


def _placed(figure: Any, size: tuple[int, int]) -> dict[str, Axis]:
    """Every axis with its range and its pixels, with room for labels."""
    m = figure.layout.margin
    left, right, top, bottom = (m.l or 70, m.r or 20, m.t or 76, m.b or 50)
    right = max(right, bar_room(figure))
    axes: dict[str, Axis] = {}
    for names in _pairs(figure):
        for name in names:
            kind = name[0]
            data = [values_on(t, kind) for t in figure.data if (t[f"{kind}axis"] or kind) == name]
            low, high = frame.axis_ranges(figure, name, data)
            axes[name] = Axis(frame.axis_layout(figure, name), low, high, 0.0, 1.0, kind == "y")
    for axis in axes.values():
        if axis.layout.visible is False:
            continue
        titled = len(frame.lines(axis.layout.title.text))
        extra = 22 + frame.LINE * (titled - 1) if titled else 4
        first = (axis.layout.domain or (0, 1))[0] == 0
        if axis.down and first:
            left = max(left, frame.room(axis) + extra + 8)
        elif not axis.down:
            bottom = max(bottom, frame.room(axis) + extra + 8 + legend_room(figure))
    inner = (left, size[0] - right, top, size[1] - bottom)
    for axis in axes.values():
        a, b = axis.layout.domain or (0.0, 1.0)
        if axis.down:
            axis.start = inner[3] - a * (inner[3] - inner[2])
            axis.end = inner[3] - b * (inner[3] - inner[2])
        else:
            axis.start = inner[0] + a * (inner[1] - inner[0])
            axis.end = inner[0] + b * (inner[1] - inner[0])
    for x, y in _pairs(figure):
        if axes[y].layout.scaleanchor:
            _equal(axes[x], axes[y])
    return axes


def _equal(x: Axis, y: Axis) -> None:
    """Scale both axes to the same pixels per unit, centred in their room."""
    per = min(abs(a.end - a.start) / abs(a.high - a.low) for a in (x, y))
    for a in (x, y):
        middle = (a.start + a.end) / 2
        half = per * abs(a.high - a.low) / 2 * (1 if a.end > a.start else -1)
        a.start, a.end = middle - half, middle + half


def _photo(image: Any, x: Axis, y: Axis) -> Photo:
    left, top = x.at(image.x), y.at(image.y)
    right, bottom = x.at(image.x + image.sizex), y.at(image.y + image.sizey)
    source = image.source
    if isinstance(source, str):
        head, _, data = source.partition(",")
        if not head.startswith("data:") or not head.endswith(";base64"):
            raise CapabilityError(
                "A still picture holds pictures given as such, not by an address of the network:"
                " write it as .html."
            )
        source = Image.open(io.BytesIO(base64.b64decode(data)))
    return Photo(left, top, right - left, bottom - top, source)


def _zero_lines(figure: Any, axes: dict[str, Axis], ink: dict[str, str]) -> list[Mark]:
    marks: list[Mark] = []
    for x, y in _pairs(figure):
        axis = axes[y]
        low, high = sorted((axis.low, axis.high))
        shown = axis.layout.zeroline is not False and axis.layout.visible is not False
        heat = any(t.type == "heatmap" for t in figure.data)
        if shown and not heat and low <= 0 <= high:
            ends = [(axes[x].start, axis.at(0)), (axes[x].end, axis.at(0))]
            marks.append(Shape(ends, ink["zero"], 1))
    return marks


def _notes(figure: Any, axes: dict[str, Axis], ink: dict[str, str]) -> list[Mark]:
    """Lines and annotations."""
    marks: list[Mark] = []
    for shape in figure.layout.shapes:
        if shape.type == "line" and shape.yref in axes:
            x = axes[(shape.xref or "x").split()[0]]
            ends = [
                (x.start, axes[shape.yref].at(shape.y0)),
                (x.end, axes[shape.yref].at(shape.y1)),
            ]
            marks.append(Shape(ends, shape.line.color or ink["zero"], shape.line.width or 1,
                               dash_of(shape.line.dash)))  # fmt: skip
        elif shape.type == "line" and shape.xref in axes:
            y = axes[(shape.yref or "y").split()[0]]
            at = axes[shape.xref].at(shape.x0)
            marks.append(Shape([(at, y.start), (at, y.end)], shape.line.color or ink["zero"],
                               shape.line.width or 1, dash_of(shape.line.dash)))  # fmt: skip
    for note in figure.layout.annotations:
        x, y = _there(note.xref, note.x, axes, "x"), _there(note.yref, note.y, axes, "y")
        across = {"left": "start", "right": "end"}.get(note.xanchor or "", "middle")
        down = {"top": "start", "bottom": "end"}.get(note.yanchor or "", "middle")
        x, y = x + (note.xshift or 0), y - (note.yshift or 0) - 2
        style = {"size": note.font.size or 12, "mono": "mono" in (note.font.family or "")}
        texts = frame.lines(note.text)
        first = y - 1.25 * style["size"] * (len(texts) - 1) * {"start": 0, "end": 1}.get(down, 0.5)
        for i, text in enumerate(texts):
            at = first + 1.25 * style["size"] * i
            marks.append(Text(x, at, text, colour=ink["ink"], across=across, down=down, **style))
    return marks


def _there(ref: str, value: Number, axes: dict[str, Axis], kind: str) -> Number:
    name, _, domain = ref.partition(" ")
    if name == "paper":
        ends = [(a.start, a.end) for a in axes.values() if a.down == (kind == "y")]
        starts = [p for pair in ends for p in pair]
        low, high = (max(starts), min(starts)) if kind == "y" else (min(starts), max(starts))
        return low + value * (high - low)
    axis = axes[name]
    return axis.start + value * (axis.end - axis.start) if domain else axis.at(value)


def _head(figure: Any, ink: dict[str, str]) -> list[Mark]:
    """Title and subtitle."""
    title = figure.layout.title
    pad, y = title.pad.l or 0, 14.0 + 8
    marks: list[Mark] = []
    for text in frame.lines(title.text):
        marks.append(Text(pad, y, text, title.font.size or 16, ink["ink"], bold=True))
        y += 21
    for text in frame.lines(title.subtitle.text):
        colour = title.subtitle.font.color or ink["ink"]
        marks.append(Text(pad, y + 1, text, title.subtitle.font.size or 12.5, colour))
        y += 16
    return marks
