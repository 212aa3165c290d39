"""The traces of a plotly figure as marks: heat maps, bars, lines, bands and points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from mmlens.view.still import frame
from mmlens.view.still.frame import Axis
from mmlens.view.still.marks import Mark, Number, Photo, Shape, Text
from mmlens.view.style.colourscale import on, read, rgb

_MANY = 3000
"""Above this number of cells, a heat map of equal cells is drawn as one picture."""


def values_on(trace: Any, kind: str) -> np.ndarray:
    """The numbers of a trace on its x or y axis that determine the axis range."""
    own = trace[kind]
    if trace.type == "heatmap":
        return _edges(trace, kind)
    values = np.asarray([] if own is None else [math.nan if v is None else v for v in own])
    if values.dtype.kind not in "fiu":
        return values  # dates, which `axis_ranges` refuses
    values = _with_errors(trace, kind, values)
    if trace.type == "bar":
        if kind == "x":
            return np.concatenate([values - 0.5, values + 0.5]) if len(values) else values
        return np.append(values, 0.0)
    if kind == "x" and len(values) and values.dtype.kind in "fi":
        pad = (
            0.04 * float(np.nanmax(values) - np.nanmin(values)) if np.isfinite(values).any() else 0
        )
        return np.concatenate([values - pad, values + pad])
    if len(values) and values.dtype.kind in "fi":
        pad = (
            0.06 * float(np.nanmax(values) - np.nanmin(values)) if np.isfinite(values).any() else 0
        )
        return np.append(values, float(np.nanmax(values)) + pad if pad else values[0])
    return values


def _with_errors(trace: Any, kind: str, values: np.ndarray) -> np.ndarray:
    """The values, and the ends of their intervals."""
    error = trace[f"error_{kind}"]
    if error.array is None or len(values) == 0:
        return values
    below = error.array if error.arrayminus is None else error.arrayminus
    above, below = (np.nan_to_num(np.asarray(part, float)) for part in (error.array, below))
    return np.concatenate([values, values + above, values - below])


def trace_marks(trace: Any, x: Axis, y: Axis, figure: Any, ink: dict[str, str]) -> list[Mark]:
    """One trace."""
    if trace.visible is False:
        return []
    if trace.type == "heatmap":
        return [] if trace.opacity == 0 else _heat(trace, x, y)
    if trace.type == "bar":
        return _bars(trace, x, y, figure, ink)
    return _scatter(trace, x, y, ink)


def _edges(trace: Any, kind: str) -> np.ndarray:
    """Float[cell + 1]: where each cell begins and ends."""
    n = np.asarray(trace.z).shape[0 if kind == "y" else 1]
    given = trace[kind]
    if given is None:
        return np.arange(n + 1) - 0.5
    at = np.asarray(given, float)
    if len(at) == n + 1:
        return at
    if n == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    inner = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0] - (inner[0] - at[0])], inner, [at[-1] + (at[-1] - inner[-1])]])


def _heat(trace: Any, x: Axis, y: Axis) -> list[Mark]:
    z = np.asarray(trace.z, float)
    stops = read(trace.colorscale)
    low, high = float(trace.zmin), float(trace.zmax)
    part = np.clip((z - low) / ((high - low) or 1), 0, 1)
    across, up = _edges(trace, "x"), _edges(trace, "y")
    gap = (trace.xgap or 0) / 2
    even = all(np.allclose(np.diff(one), np.diff(one)[0]) for one in (across, up))
    if z.size > _MANY and even and np.isfinite(z).all():
        pixels = Image.fromarray(rgb(stops, part).round().astype(np.uint8))
        left, top = x.at(float(across[0])), y.at(float(up[0]))
        wide, tall = x.at(float(across[-1])) - left, y.at(float(up[-1])) - top
        if tall < 0:
            pixels, top, tall = pixels.transpose(Image.Transpose.FLIP_TOP_BOTTOM), top + tall, -tall
        return [Photo(left, top, wide, tall, pixels)]
    marks: list[Mark] = []
    for i, j in np.argwhere(np.isfinite(z)).tolist():
        colour = on(stops, float(part[i, j]))
        a, b = x.at(float(across[j])) + gap, x.at(float(across[j + 1])) - gap
        c, d = sorted((y.at(float(up[i])), y.at(float(up[i + 1]))))
        seam = 0 if gap else 0.4  # neighbours overlap, so that no background shows between
        corners = [
            (a, c + gap),
            (b + seam, c + gap),
            (b + seam, d - gap + seam),
            (a, d - gap + seam),
        ]
        marks.append(Shape(corners, colour))
    return marks


def _bars(trace: Any, x: Axis, y: Axis, figure: Any, ink: dict[str, str]) -> list[Mark]:
    group = [t for t in figure.data if t.type == "bar"]
    group = group if figure.layout.barmode in (None, "group") else []
    n, at = max(len(group), 1), next((i for i, t in enumerate(group) if t is trace), 0)
    thick = 0.8 / n
    marks: list[Mark] = []
    colours = trace.marker.color
    for i, (place, value) in enumerate(zip(trace.x, trace.y, strict=True)):
        if value is None or not math.isfinite(value):
            continue
        place, value = float(place), float(value)
        colour = colours if isinstance(colours, str) else colours[i]
        left, right = (x.at(place - 0.4 + thick * (at + side)) for side in (0, 1))
        corners = [(left, y.at(0)), (right, y.at(0)), (right, y.at(value)), (left, y.at(value))]
        marks.append(Shape(corners, colour))
    return marks + _errors(trace, x, y, ink, [float(p) - 0.4 + thick * (at + 0.5) for p in trace.x])


def _errors(trace: Any, x: Axis, y: Axis, ink: dict[str, str], places: Any = None) -> list[Mark]:
    """Lines from a point's lower end to its upper end.

    Args:
        places: of bars, the middle of each on its axis.
    """
    marks: list[Mark] = []
    for kind in ("x", "y"):
        error = trace[f"error_{kind}"]
        if error.array is None:
            continue
        below = error.arrayminus if error.arrayminus is not None else error.array
        across = trace.x if places is None else places
        for i, (a, b) in enumerate(zip(across, trace.y, strict=True)):
            ends = [float(a if kind == "x" else b) + part for part in (-below[i], error.array[i])]
            if not np.isfinite(ends).all():
                continue
            line = [(x.at(end), y.at(b)) if kind == "x" else (x.at(a), y.at(end)) for end in ends]
            marks.append(Shape(line, error.color or ink["ink"], error.thickness or 1.5))
    return marks


def _scatter(trace: Any, x: Axis, y: Axis, ink: dict[str, str]) -> list[Mark]:
    pairs = zip(trace.x if trace.x is not None else (), trace.y if trace.y is not None else (),
                strict=True)  # fmt: skip
    known = [(i, a, b) for i, (a, b) in enumerate(pairs) if a is not None and b is not None]
    at = [(i, (x.at(float(a)), y.at(float(b)))) for i, a, b in known if math.isfinite(b)]
    points = [point for _, point in at]
    mode = trace.mode or "lines"
    marks: list[Mark] = []
    if trace.fill == "toself" and points:
        marks.append(Shape(points, trace.fillcolor or ink["line"]))
    if "lines" in mode and len(points) > 1 and trace.line.width != 0:
        dash = "" if trace.line.dash in (None, "solid") else trace.line.dash
        marks.append(Shape(points, trace.line.color or ink["ink"], trace.line.width or 2, dash))
    marks += _errors(trace, x, y, ink)
    for i, (a, b) in at:
        if "markers" in mode:
            size = _each(trace.marker.size, i, 8)
            colour = _each(trace.marker.color, i, trace.line.color or ink["ink"])
            faint = trace.marker.opacity
            dot = _symbol(a, b, size / 2, _each(trace.marker.symbol, i, "circle"))
            marks.append(Shape(dot, colour, opacity=1.0 if faint is None else float(faint)))
        if "text" in mode and trace.text is not None and _each(trace.text, i, ""):
            size = _each(trace.marker.size, i, 8) / 2
            style = trace.textfont
            word = frame.plain(str(_each(trace.text, i, "")))
            colour = _each(style.color, i, ink["ink"])
            place = _each(trace.textposition, i, "top center") if "markers" in mode else "middle"
            at_x, at_y, across, down = _beside(a, b, size + 3, place)
            mono = "mono" in (style.family or "")
            marks.append(Text(at_x, at_y, word, style.size or 12, colour, across, down, mono=mono))
    return marks


def _beside(x: Number, y: Number, apart: Number, place: str) -> tuple[Number, Number, str, str]:
    """Where a text stands beside a point, and how it is anchored there: `place` as plotly's."""
    if place == "middle right":
        return x + apart, y, "start", "middle"
    if place == "bottom center":
        return x, y + apart, "middle", "start"
    return (x, y - apart, "middle", "end") if place == "top center" else (x, y, "middle", "middle")


def _each(value: Any, i: int, default: Any) -> Any:
    """The value of point `i`: one for all, or one each."""
    if value is None:
        return default
    return value if isinstance(value, (str, int, float)) else value[i]


def _symbol(x: Number, y: Number, r: Number, name: str) -> list[tuple[Number, Number]]:
    """The outline of a point; unknown symbols are circles."""
    corners = {"square": (4, 45), "diamond": (4, 0), "triangle-up": (3, -90), "star": (5, -90)}
    n, turn = corners.get(name, (24, 0))
    if name in ("cross", "x"):
        arm = [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)]
        outline = [(r / 3 * a, r / 3 * b) for a, b in arm + [(-a, -b) for a, b in arm]]
        turn = 45 if name == "x" else 0
    else:
        large = 1.2 * r if n < 24 else r
        angles = [math.radians(360 * k / n) for k in range(n)]
        outline = [(large * math.cos(angle), large * math.sin(angle)) for angle in angles]
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in outline]
