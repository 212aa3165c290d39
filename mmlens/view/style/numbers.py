"""The numbers of a figure as a table, for CSV.

A view that was made of a table keeps it (`keep`); otherwise the numbers are read off the traces, so
that also an edited figure has those that it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape
from typing import Any

import numpy as np
import pandas as pd

_TAG = re.compile(r"<[^>]*>")


def keep(figure: Any, table: pd.DataFrame) -> Any:
    """The figure, which remembers the table that it shows."""
    figure._rows = table
    return figure


def csv_of(rows: pd.DataFrame) -> str:
    """A table as CSV; a list in a cell is joined by spaces."""
    shown = rows.map(lambda one: " ".join(map(str, one)) if isinstance(one, (list, tuple)) else one)
    return shown.to_csv(index=False, lineterminator="\n")


def of_figure(figure: Any) -> pd.DataFrame:
    """The table of a plotly figure's numbers."""
    held = getattr(figure, "_rows", None)
    if held is not None:
        return held
    rows: list[dict[str, Any]] = []
    for trace in figure.data:
        if trace.type == "heatmap":
            rows += _cells(figure, trace)
        elif trace.type in ("bar", "scatter") and getattr(trace, "fill", None) is None:
            rows += _points(figure, trace)
    return pd.DataFrame(rows)


def _cells(figure: Any, trace: Any) -> Iterable[dict[str, Any]]:
    z, names = np.asarray(trace.z, float), np.asarray(trace.customdata)
    up, across = _axis(figure, trace, "y"), _axis(figure, trace, "x")
    shown = {"panel": _plain(trace.name)} if trace.name else {}
    for row, column in np.argwhere(np.isfinite(z)).tolist():
        here = names[row, column] if names.ndim == 3 else (row, column)
        a, b = (_plain(one) if isinstance(one, str) else int(one) for one in here)
        yield {**shown, up: a, across: b, "value": float(z[row, column])}


def _points(figure: Any, trace: Any) -> Iterable[dict[str, Any]]:
    across = _axis(figure, trace, "x")
    known = zip(trace.x, trace.y, strict=True) if trace.x is not None else ()
    names = trace.customdata if trace.type == "bar" and trace.customdata is not None else None
    spread = None if names is not None else trace.customdata
    for i, (x, y) in enumerate(known):
        if x is None or y is None:
            continue
        row = {"line": _plain(trace.name)} if trace.name else {}
        row[across] = _plain(names[i]) if names is not None else x
        row["value"] = y
        if spread is not None and len(np.shape(spread)) == 2:
            row |= {"low": float(spread[i][0]), "high": float(spread[i][1])}
        yield row


def _axis(figure: Any, trace: Any, kind: str) -> str:
    name = (trace[f"{kind}axis"] or kind).replace(kind, f"{kind}axis")
    title = figure.layout[name].title.text
    return _plain(title).replace("patch ", "") if title else {"x": "column", "y": "row"}[kind]


def _plain(text: Any) -> str:
    """Text of plotly without its markup."""
    return unescape(_TAG.sub("", str(text)))
