"""Scores of two axes as a heat map, of one axis as bars.

Values of both signs are centred on 0 (red below, blue above); others go from pale to strong. A tick
has its index, so that a repeated word keeps two rows. Patches are labelled by their row, and words
get more room than patches, because they are few and have to be legible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mmlens.values.errors import AddressError
from mmlens.values.labels import Padding, Patch, Token
from mmlens.values.scores import Scores
from mmlens.view.style import given, theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.printed import label
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import quantity, title_of

_MOST_TICKS = 40
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
            f"A heat map has two axes, and {scores!r} has {len(scores.axes)}: narrow it, as in"
            " scores.sel(token=...), or reduce it, as in scores.sum('unit')."
        )
    told, about = title_of(scores)
    heat, (up, rows), (across, columns) = cells(scores)
    down = up != "layer"
    return theme.finish(
        Figure(heat),
        given.title(title, told),
        about,
        height=min(max(200 + 24 * min(len(rows), 30), 360), 900),
        xaxis={
            **axis_of(across, columns),
            "showgrid": False,
            "automargin": True,
            "tickangle": -90 if len(columns) > 8 and not isinstance(columns[0], int) else None,
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
            "<br><b>%{z:.4g}</b><extra></extra>"
        ),
        colorbar=theme.colourbar(quantity(scores)),
        **_colours(values if scale_of is None else scale_of),
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
            f"Bars have one axis, and {scores!r} has {len(scores.axes)}: narrow or reduce it, as in"
            " scores.sum('pos', 'unit')."
        )
    (axis,) = scores.axes
    values, labels = scores.numpy(), list(scores.of(axis))
    told, about = title_of(scores)
    c = theme.colours()
    figure = Figure(
        go.Bar(
            x=np.arange(len(values)) + 0.5,
            y=values,
            marker_color=[c["lowers"] if v < 0 else c["raises"] for v in values],
            customdata=[in_figure(_tick(i, one)) for i, one in enumerate(labels)],
            hovertemplate=f"{in_figure(axis)} %{{customdata}}: <b>%{{y:.4g}}</b><extra></extra>",
        )
    )
    return theme.finish(
        figure,
        given.title(title, told),
        about,
        height=360,
        xaxis={**axis_of(axis, labels), "showgrid": False, "automargin": True},
        yaxis={"title": in_figure(quantity(scores))},
    )


def _colours(values: np.ndarray) -> dict[str, Any]:
    """Centred on 0 where both signs occur; else from 0, or from the lowest where none is above."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high:
        top = max(-low, high)
        return {"colorscale": theme.scale("diverging"), "zmin": -top, "zmax": top, "zmid": 0}
    start = 0.0 if low >= 0 else low
    return {
        "colorscale": theme.scale("sequential"),
        "zmin": start,
        "zmax": high if high > start else start + 1,
    }


def _edges(labels: Sequence[Any]) -> np.ndarray:
    """Float[label + 1]: where each cell begins and ends; among patches, words are wider."""
    patches = np.array([isinstance(one, Patch) for one in labels])
    wide = max(1.0, patches.sum() / 20)
    return np.concatenate([[0.0], np.cumsum(np.where(patches, 1.0, wide))])


def axis_of(name: str, labels: Sequence[Any], most: int = _MOST_TICKS) -> dict[str, Any]:
    """Title and ticks of one axis: every label, or as many as are legible."""
    every = -(-len(labels) // most)
    shown = [
        i
        for i, one in enumerate(labels)
        if (one.col == 0 if isinstance(one, Patch) else i % every == 0 or len(labels) - i <= 9)
    ]
    edges = _edges(labels)
    return {
        "title": in_figure(_NAMES.get(name, name)),
        "tickvals": [(edges[i] + edges[i + 1]) / 2 for i in shown],
        "ticktext": [in_figure(_tick(i, labels[i], short=True)) for i in shown],
        "tickfont": {"family": theme.MONO, "size": 11.5},
    }


def _tick(index: int, one: Any, short: bool = False) -> str:
    if isinstance(one, Patch):
        return f"row {one.row}" if short and one.col == 0 else f"patch {one}"
    if isinstance(one, (Token, Padding)):
        return f"{label(one)} {one.at}"
    if isinstance(one, str):
        return f"{label(one)} {index}"
    return label(one)


def _names(rows: Sequence[Any], columns: Sequence[Any]) -> np.ndarray:
    """Str[row, column, 2]: the escaped names of both labels of every cell."""
    up = [in_figure(_tick(i, one)) for i, one in enumerate(rows)]
    across = [in_figure(_tick(i, one)) for i, one in enumerate(columns)]
    return np.array([[(a, b) for b in across] for a in up], dtype=object)
