"""The frame of a still picture: a plotly figure's axes in pixels, with ticks and titles.

Read from the figure itself: domains, ranges, ticks, titles, margins. What plotly.js would compute
in the browser (room for tick labels, round ticks, equal scales) is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

import numpy as np

from mmlens.values.errors import CapabilityError
from mmlens.view.still.marks import Mark, Number, Shape, Text, wide

SIZE, LINE = 12.0, 16
"""Of tick labels; from line to line of an axis' name."""


@dataclass
class Axis:
    """One axis: its layout, the values at its two ends, and the pixels of these ends."""

    layout: Any
    low: Number
    high: Number
    start: Number
    end: Number
    down: bool

    def at(self, value: Number) -> Number:
        """Pixels of a value."""
        return self.start + (float(value) - self.low) / (self.high - self.low) * (
            self.end - self.start
        )

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their texts, inside of the axis."""
        low, high = sorted((self.low, self.high))
        if self.layout.tickvals is not None:
            values = [float(one) for one in self.layout.tickvals]
            given = self.layout.ticktext
            texts = (
                [plain(str(one)) for one in given] if given is not None else map(_number, values)
            )
        else:
            about = self.layout.nticks or (5 if self.down else 7)
            values = round_ticks(low, high, about, self.layout.dtick)
            texts = [_number(one, self.layout.tickformat) for one in values]
        edge = 1e-9 * (high - low)
        return [
            (v, t) for v, t in zip(values, texts, strict=True) if low - edge <= v <= high + edge
        ]


def plain(text: str) -> str:
    """plotly's pseudo-HTML as text: tags removed, entities decoded."""
    for tag in ("<b>", "</b>", "<i>", "</i>"):
        text = text.replace(tag, "")
    return unescape(text)


def lines(text: str | None) -> list[str]:
    """The lines of a plotly text."""
    return [plain(part) for part in (text or "").split("<br>")] if text else []


def round_ticks(low: Number, high: Number, about: int, step: Number | None = None) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten (or of `step`)."""
    if step is None:
        rough = (high - low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    first = math.ceil(low / step - 1e-9)
    return [float(n * step) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def axis_ranges(figure: Any, name: str, data: Sequence[np.ndarray]) -> tuple[float, float]:
    """The values at the start and the end of an axis.

    Args:
        name: "x", "y2", ...
        data: the numbers on this axis.

    Raises:
        CapabilityError: categories or dates instead of numbers.
    """
    layout = axis_layout(figure, name)
    if layout.range is not None:
        return float(layout.range[0]), float(layout.range[1])
    try:
        if any(np.asarray(part).dtype.kind in "MO" for part in data):
            raise ValueError
        every = np.concatenate([np.asarray(part, float).ravel() for part in data] or [np.zeros(1)])
    except ValueError:
        raise CapabilityError(
            f"A still picture needs numbers or names on its axes, and axis {name!r} of this figure"
            " has dates, or names beside numbers: write it as .html."
        ) from None
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    if layout.rangemode == "tozero":
        low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        low, high = low - 0.5, high + 0.5
    return (high, low) if layout.autorange == "reversed" else (low, high)


def axis_layout(figure: Any, name: str) -> Any:
    return figure.layout[f"{name[0]}axis{name[1:]}"]


def drawn(axis: Axis, other: Axis, ink: dict[str, str]) -> list[Mark]:
    """Grid lines, tick labels and title of one axis."""
    if axis.layout.visible is False:
        return []
    marks: list[Mark] = []
    edges = (other.start, other.end)
    size = axis.layout.tickfont.size or SIZE
    mono = "mono" in (axis.layout.tickfont.family or "")
    angle = axis.layout.tickangle
    ticks = axis.ticks()
    for value, text in ticks:
        at = axis.at(value)
        if axis.layout.showgrid is not False:
            ends = (
                [(edges[0], at), (edges[1], at)] if axis.down else [(at, edges[0]), (at, edges[1])]
            )
            marks.append(Shape(ends, ink["line"], 1))
        if axis.layout.showticklabels is False:
            continue
        if axis.down:
            marks.append(Text(edges[0] - 7, at, text, size, ink["ink"], "end", mono=mono))
        elif angle in (None, 0):
            marks.append(
                Text(at, edges[0] + 7, text, size, ink["ink"], "middle", "start", mono=mono)
            )
        else:
            marks.append(Text(at + 1, edges[0] + 9, text, size, ink["ink"], "end", mono=mono,
                              turn=-90 if angle == -90 else -45))  # fmt: skip
    titles = lines(axis.layout.title.text)
    middle, far = (axis.start + axis.end) / 2, room(axis, ticks)
    for n, title in enumerate(titles):
        up = edges[0] - far - 6 - LINE * (len(titles) - 1 - n)
        marks.append(
            Text(up, middle, title, 13, ink["ink"], "middle", "end", turn=-90)
            if axis.down
            else Text(middle, edges[0] + far + 4 + LINE * n, title, 13, ink["ink"], "middle",
                      "start")
        )  # fmt: skip
    return marks


def room(axis: Axis, ticks: list[tuple[float, str]] | None = None) -> Number:
    """The pixels that tick labels take beside the axis."""
    size = axis.layout.tickfont.size or SIZE
    mono = "mono" in (axis.layout.tickfont.family or "")
    if axis.layout.showticklabels is False:
        return 4
    texts = [text for _, text in (axis.ticks() if ticks is None else ticks)]
    longest = max((wide(text, size, mono) for text in texts), default=0.0)
    if axis.down:
        return longest + 10
    if axis.layout.tickangle in (None, 0):
        return size + 10
    return 12 + longest * (1.0 if axis.layout.tickangle == -90 else 0.71) + size * 0.4


def _number(value: Number, form: str | None = None) -> str:
    text = f"{value:{form}}" if form in (".0%", ".1%") else f"{value:.6g}"
    return text.replace("-", "−")
