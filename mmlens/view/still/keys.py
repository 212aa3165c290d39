"""The keys to a still picture: the colour bar beside it and the legend of its lines below."""

from __future__ import annotations

from typing import Any

from mmlens.view.still import frame
from mmlens.view.still.frame import Axis
from mmlens.view.still.marks import Mark, Number, Shape, Text, wide
from mmlens.view.style.colourscale import on, read


def bar_room(figure: Any) -> float:
    """The pixels at the right that a colour bar takes, with its name in so many lines."""
    bars = [found[0] for trace in figure.data if (found := _bar_of(trace)) is not None]
    most = max((len(frame.lines(bar.title.text)) for bar in bars), default=1)
    return 96.0 + frame.LINE * (max(most, 1) - 1) if bars else 0.0


def _bar_of(trace: Any) -> tuple[Any, float, float, Any] | None:
    """(colour bar, low, high, scale) of a trace that has one."""
    if trace.type == "heatmap" and trace.showscale is not False:
        return trace.colorbar, float(trace.zmin), float(trace.zmax), trace.colorscale
    marker = getattr(trace, "marker", None)
    if marker is not None and marker.showscale:
        return marker.colorbar, float(marker.cmin), float(marker.cmax), marker.colorscale
    return None


def bars_of_colour(figure: Any, axes: dict[str, Axis], ink: dict[str, str]) -> list[Mark]:
    """The colour bar at the right; several bars each beside the map that it belongs to."""
    found = [(trace, _bar_of(trace)) for trace in figure.data if _bar_of(trace) is not None]
    right = max(a.end for a in axes.values() if not a.down)
    top = min(a.end if a.end < a.start else a.start for a in axes.values() if a.down)
    bottom = max(a.start if a.end < a.start else a.end for a in axes.values() if a.down)
    marks: list[Mark] = []
    for trace, bar in found if len(found) > 1 else found[:1]:
        edge = axes[trace.xaxis or "x"].end + 2 if len(found) > 1 else right + 14
        marks += _bar_marks(bar, edge, (top, bottom), ink)
    return marks


def _bar_marks(
    given: Any, x: Number, ends: tuple[Number, Number], ink: dict[str, str]
) -> list[Mark]:
    bar, low, high, scale = given
    (top, bottom), stops, n = ends, read(scale), 64
    step = (bottom - top) / n
    marks: list[Mark] = []
    for i in range(n):
        y = bottom - (i + 1) * step
        corners = [(x, y), (x + 12, y), (x + 12, y + step + 0.5), (x, y + step + 0.5)]
        marks.append(Shape(corners, on(stops, (i + 0.5) / n)))
    axis = Axis(bar, low, high, bottom, top, True)
    for value in frame.round_ticks(low, high, 5):
        text = f"{value:.4g}".replace("-", "−")
        marks.append(Text(x + 17, axis.at(value), text, 12, ink["ink"]))
    for n, title in enumerate(frame.lines(bar.title.text)):
        marks.append(Text(x + 74 + frame.LINE * n, (top + bottom) / 2, title, 12.5, ink["ink"],
                          "middle", "end", turn=-90))  # fmt: skip
    return marks


def _named(figure: Any) -> list[Any]:
    """The traces of the legend."""
    if figure.layout.showlegend is False:
        return []
    named = [t for t in figure.data if t.name and t.showlegend is not False and t.type != "heatmap"]
    return named if len(named) > 1 or figure.layout.showlegend else []


def legend_room(figure: Any) -> float:
    return 30.0 if _named(figure) else 0.0


def legend(
    figure: Any, size: tuple[int, int], axes: dict[str, Axis], ink: dict[str, str]
) -> list[Mark]:
    marks: list[Mark] = []
    x, y = min(a.start for a in axes.values() if not a.down), size[1] - 18.0
    for trace in _named(figure):
        colour = (trace.line.color if trace.type == "scatter" else None) or trace.marker.color
        colour = colour if isinstance(colour, str) else ink["ink"]
        dash = dash_of(trace.line.dash) if trace.type == "scatter" else ""
        marks.append(
            Shape([(x, y), (x + 28, y)], colour, 2.2 if trace.type == "scatter" else 9, dash)
        )
        text = frame.plain(trace.name)
        marks.append(Text(x + 34, y, text, 12, ink["ink"]))
        x += 34 + wide(text, 12) + 22
    return marks


def dash_of(name: str | None) -> str:
    return "" if name in (None, "solid") else str(name)
