"""Scores of two axes as a heat map, of one axis as bars.

Effects, and values of both signs, are centred on 0 (red below, blue above); others go from the
colour of 0 to a strong one. Each label has a row of its own, also a word that occurs twice. Patches
are labelled by their row, and words get more room than patches, because they are few and have to be
legible. Results of causal experiments begin at the run that was changed (`baselines`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mmlens.values.errors import AddressError
from mmlens.values.labels import Padding, Patch, Token
from mmlens.values.scores import Scores
from mmlens.view.still.marks import wide
from mmlens.view.style import given, theme
from mmlens.view.style.baselines import from_nothing, is_signed
from mmlens.view.style.figure import Figure
from mmlens.view.style.printed import label
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import axis_name, quantity, title_of

_FEW = 5
"""Fewer bars than these are as thin as of so many."""
_MOST_TICKS, _ROOM = 40, theme.WIDTH - 190
_NAMES = {"pos": "position", "dim": "dimension", "query": "query position", "key": "key position"}


def heatmap(scores: Any, *, title: str | None = None) -> go.Figure:
    """Two axes as a plotly heat map: `layer` (or the first axis) upwards, the other to the right.

    Args:
        scores: Scores, or a tensor or array of two axes.

    Raises:
        AddressError: more or fewer axes than two; the error says how to narrow.
    """
    scores = given.scores(scores)
    if len(scores.axes) != 2:
        raise AddressError(
            f"A heat map has two axes, and {scores!r} has {len(scores.axes)}:"
            f" {given.narrower(scores, 2)}."
        )
    scores = from_nothing(scores)
    told, about = title_of(scores)
    heat, (up, rows), (across, columns) = cells(scores)
    down = up != "layer"
    bottom = axis_of(across, columns, room=_ROOM)
    return theme.finish(
        Figure(heat),
        given.title(title, told),
        about,
        height=min(max(200 + 24 * min(len(rows), 30), 360), 900),
        meta={"least": _least(bottom, 190), "turn": 190},
        xaxis={
            **bottom,
            "showgrid": False,
            "automargin": True,
        },
        yaxis={
            **axis_of(up, rows),
            "showgrid": False,
            "autorange": "reversed" if down else True,
            "automargin": True,
        },
    )


def cells(
    scores: Scores, scale_of: np.ndarray | None = None
) -> tuple[go.Heatmap, tuple[str, list[Any]], tuple[str, list[Any]]]:
    """The heat map of two axes, and (axis, labels) upwards and to the right.

    Args:
        scale_of: the values that the colours cover, where several maps share a scale.
    """
    up, across = scores.axes if scores.axes[1] != "layer" else scores.axes[::-1]
    values = scores.numpy() if up == scores.axes[0] else scores.numpy().T
    rows, columns = list(scores.of(up)), list(scores.of(across))
    heat = go.Heatmap(
        z=np.ascontiguousarray(values, dtype=np.float32),
        x=_edges(columns),
        y=_edges(rows),
        customdata=_names(rows, columns),
        hovertemplate=(
            f"{in_figure(up)} %{{customdata[0]}}<br>{in_figure(across)} %{{customdata[1]}}"
            f"<br>{in_figure(quantity(scores))} <b>%{{z:.4g}}</b><extra></extra>"
        ),
        colorbar=theme.colourbar(axis_name(scores)),
        **_colours(values if scale_of is None else scale_of, is_signed(scores)),
    )
    return heat, (up, rows), (across, columns)


def bars(scores: Any, *, title: str | None = None) -> go.Figure:
    """One axis as a plotly bar chart, blue above 0 and red below.

    Args:
        scores: Scores, or a tensor or array of one axis.

    Raises:
        AddressError: more or fewer axes than one.
    """
    scores = given.scores(scores)
    if len(scores.axes) != 1:
        raise AddressError(
            f"Bars have one axis, and {scores!r} has {len(scores.axes)}:"
            f" {given.narrower(scores, 1)}."
        )
    scores = from_nothing(scores)
    (axis,) = scores.axes
    values, labels = scores.numpy(), list(scores.of(axis))
    told, about = title_of(scores)
    c = theme.colours()
    bottom = {**axis_of(axis, labels, room=_ROOM + 60), "showgrid": False, "automargin": True}
    figure = Figure(
        go.Bar(
            x=np.arange(len(values)) + 0.5,
            y=values,
            marker_color=[c["lowers"] if v < 0 else c["raises"] for v in values],
            customdata=[in_figure(_named(one)) for one in labels],
            hovertemplate=f"{in_figure(axis)} %{{customdata}}<br>{in_figure(quantity(scores))}"
            " <b>%{y:.4g}</b><extra></extra>",
        )
    )
    return theme.finish(
        figure,
        given.title(title, told),
        about,
        height=360,
        meta={"least": _least(bottom, 130), "turn": 130},
        xaxis={
            **bottom,
            "range": [min(0, len(labels) - _FEW) / 2, max(len(labels), (len(labels) + _FEW) / 2)],
        },
        yaxis={"title": in_figure(axis_name(scores))},
    )


def _colours(values: np.ndarray, signed: bool) -> dict[str, Any]:
    """Centred on 0 for effects and where values lie below it; otherwise from 0 upwards."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 or signed:
        top = max(-low, high) or 1.0
        return {"colorscale": theme.scale("diverging"), "zmin": -top, "zmax": top, "zmid": 0}
    return {"colorscale": theme.scale("sequential"), "zmin": 0.0, "zmax": high or 1.0}


def _edges(labels: Sequence[Any]) -> np.ndarray:
    """Float[label + 1]: where each cell begins and ends; among patches, words are wider."""
    patches = np.array([isinstance(one, Patch) for one in labels])
    wider = max(1.0, patches.sum() / 20)
    return np.concatenate([[0.0], np.cumsum(np.where(patches, 1.0, wider))])


def axis_of(
    name: str, labels: Sequence[Any], most: int = _MOST_TICKS, room: int = 0
) -> dict[str, Any]:
    """Title and ticks of one axis: every label, or as many as are legible.

    Args:
        room: pixels of a horizontal axis, whose labels are turned where they would overlap.
    """
    every, patched = -(-len(labels) // most), any(isinstance(one, Patch) for one in labels)
    shown = [
        i
        for i, one in enumerate(labels)
        if (
            one.col == 0
            if isinstance(one, Patch)
            else i % every == 0 or (patched and len(labels) - i <= 9)
        )
    ]
    edges = _edges(labels)
    places = [(edges[i] + edges[i + 1]) / 2 for i in shown]
    texts = [_tick(labels[i]) for i in shown]
    axis = {
        "title": in_figure(_NAMES.get(name, name)),
        "tickvals": places,
        "ticktext": [in_figure(text) for text in texts],
        "tickfont": {"family": theme.MONO, "size": 11.5},
    }
    if room and len(places) > 1:
        apart = min(np.diff(places)) / edges[-1] * room
        longest = max(wide(text, 11.5, mono=True) for text in texts)
        axis["tickangle"] = -90 if longest + 4 > apart else 0
    return axis


def _least(axis: dict[str, Any], beside: int) -> int:
    """The pixels of a figure that the labels of its horizontal axis need once they are turned.

    Of whole numbers a narrow page shows fewer (`figure.js`).

    Args:
        beside: the pixels beside the labels.
    """
    texts = axis["ticktext"]
    return 320 if all(text.isdigit() for text in texts) else max(320, beside + 13 * len(texts))


def _tick(one: Any) -> str:
    """A label beside an axis."""
    if isinstance(one, Patch):
        return f"row {one.row}" if one.col == 0 else f"patch {one}"
    return label(one)


def _named(one: Any) -> str:
    """A label on hover, where a word that occurs twice says which it is."""
    if isinstance(one, Patch):
        return f"patch {one}"
    return f"{label(one)}, position {one.at}" if isinstance(one, (Token, Padding)) else label(one)


def _names(rows: Sequence[Any], columns: Sequence[Any]) -> np.ndarray:
    """Str[row, column, 2]: the escaped names of both labels of every cell."""
    up, across = ([in_figure(_named(one)) for one in some] for some in (rows, columns))
    return np.array([[(a, b) for b in across] for a in up], dtype=object)
