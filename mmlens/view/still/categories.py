"""Axes of names as axes of numbers: each category at 0, 1, 2, ..., its name a tick.

plotly.js does this in the browser; a still picture has numbers on its axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def numbered(figure: Any) -> Any:
    """The figure, or a copy of it whose categories are numbers."""
    found = {name: _order(figure, name) for name in _axes(figure)}
    if not any(found.values()):
        return figure
    from plotly.graph_objects import Figure

    copy: Any = Figure(figure)
    for trace in copy.data:
        for kind in ("x", "y"):
            places = found[(trace[f"{kind}axis"] or kind)]
            if places and trace[kind] is not None:
                trace[kind] = [places[str(one)] for one in trace[kind]]
    for name, places in found.items():
        if places:
            _mark(copy.layout[f"{name[0]}axis{name[1:]}"], places)
    return copy


def _axes(figure: Any) -> list[str]:
    """The axes that have data: x, y, x2, ..."""
    return list(dict.fromkeys((t[f"{k}axis"] or k) for t in figure.data for k in ("x", "y")))


def _order(figure: Any, name: str) -> dict[str, int]:
    """The place of every category; nothing on an axis of numbers."""
    kind, seen = name[0], list[str]()
    for trace in figure.data:
        if (trace[f"{kind}axis"] or kind) == name and trace[kind] is not None:
            values = np.asarray(trace[kind])
            if values.dtype.kind in "US" or (
                values.dtype.kind == "O" and any(isinstance(one, str) for one in values)
            ):
                seen += [str(one) for one in values]
    layout = figure.layout[f"{kind}axis{name[1:]}"]
    given = [str(one) for one in layout.categoryarray] if layout.categoryarray is not None else []
    return {one: i for i, one in enumerate(dict.fromkeys([*given, *seen]))} if seen else {}


def _mark(axis: Any, places: dict[str, int]) -> None:
    turned = axis.autorange == "reversed"
    axis.categoryarray, axis.categoryorder, axis.type = None, None, "linear"
    axis.zeroline = False
    axis.tickvals, axis.ticktext = list(places.values()), list(places)
    if axis.range is None:
        ends = [-0.5, len(places) - 0.5]
        axis.range = ends[::-1] if turned else ends
