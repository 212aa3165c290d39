"""What figures are made of: strips of points with intervals, colours, a finish.

Blue is what an experiment is about, grey what it is compared with, green the upper end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.view.style import theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.theme import in_figure


def strips(
    rows: Any,
    arms: Mapping[str, str],
    title: str,
    subtitle: str,
    *,
    panels: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    line: str | None = None,
) -> go.Figure:
    """Points with intervals: one panel per value of `panel`, one line per arm, from above.

    Args:
        rows: panel, arm, mean, low, high, and with `kinds` a column kind.
        arms: the lines in their order, with the names that are shown.
        kinds: several points per line, each with its colour: own, other or end.
        line: the arm whose mean is drawn through its panel.
    """
    rows = rows[rows["arm"].isin(list(arms))]
    panels = list(rows["panel"].unique()) if panels is None else list(panels)
    figure: Any = make_subplots(
        1, len(panels), shared_yaxes=True, horizontal_spacing=0.03,
        subplot_titles=[f"<b>{marked(p)}</b>" for p in panels], figure=Figure(),
    )  # fmt: skip
    c = colours()
    for column, panel in enumerate(panels, 1):
        here = rows[rows["panel"] == panel]
        for kind, colour in (kinds or {arm: _kind(arm) for arm in arms}).items():
            own = here[here["kind" if kinds else "arm"] == kind]
            trace = _points(own, arms, c[colour], kind, bool(kinds) and column == 1)
            figure.add_trace(trace, 1, column)
        if line in set(here["arm"]):
            at = float(here.loc[here["arm"] == line, "mean"].iloc[0])
            figure.add_vline(at, line={"color": c["other"], "width": 1, "dash": "dot"}, col=column)
    figure = finish(
        figure, title, subtitle, height=(166 if kinds else 134) + 30 * len(arms),
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0},
        showlegend=bool(kinds),
    )  # fmt: skip
    figure.update_layout(margin={"t": 104, "l": 20, "b": 62 if kinds else 30})
    figure.update_annotations(font={"size": 12.5})
    names = [in_figure(text) for text in arms.values()]
    figure.update_yaxes(
        categoryorder="array", categoryarray=names[::-1], automargin=True, tickfont={"size": 13},
        range=[-0.6, len(names) - 0.4],
    )  # fmt: skip
    figure.update_xaxes(nticks=4, zeroline=False, tickfont={"size": 12})
    return figure


def _points(rows: Any, arms: Mapping[str, str], colour: str, kind: str, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=rows["mean"], y=[in_figure(arms[arm]) for arm in rows["arm"]], mode="markers",
        marker={"size": 9, "color": colour},
        error_x={"type": "data", "symmetric": False, "thickness": 2, "width": 0, "color": colour,
                 **spread(rows)},
        name=in_figure(kind), legendgroup=kind, showlegend=legend,
        customdata=np.stack([rows["low"], rows["high"], rows["n"]], -1),
        hovertemplate="%{y}: <b>%{x:.3f}</b> [%{customdata[0]:.3f}, %{customdata[1]:.3f}],"
                      " %{customdata[2]} pictures<extra></extra>",
    )  # fmt: skip


def finish(figure: go.Figure, title: str, subtitle: str, **layout: Any) -> go.Figure:
    """As `theme.finish`, with a smaller title above the left edge, since the page has headings."""
    theme.finish(figure, title, subtitle, **layout)
    figure.update_layout(title={"font": {"size": 14}, "pad": {"l": 0, "t": 6}, "x": 0})
    figure.update_xaxes(title={"font": {"size": 13}})
    figure.update_traces(selector={"type": "heatmap"}, colorbar={"title": {"font": {"size": 12.5}}})
    return figure.update_yaxes(title={"font": {"size": 13}})


def spread(rows: Any) -> dict[str, Any]:
    """The interval as distances from the mean."""
    return {"array": rows["high"] - rows["mean"], "arrayminus": rows["mean"] - rows["low"]}


def _kind(arm: str) -> str:
    if "random" in arm:
        return "other"
    return "end" if arm in ("caption", "nouns") else "own"


def colours() -> dict[str, str]:
    c = theme.colours()
    dark = theme.colours()["page"] != "#ffffff"
    warm, end = ("#f9b04a", "#2cc79a") if dark else ("#b45309", "#00855f")
    return {"own": c["raises"], "other": c["muted"], "end": end, "warm": warm,
            "ink": c["ink"], "line": c["muted"]}  # fmt: skip


def ink(share: float) -> str:
    """Black or white, whichever reads better on a colour of the sequential scale."""
    stops = theme.colours()["sequential"]
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    near = stops[round(at)]
    parts = [(int(near[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
    light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000000" if light > 0.18 else "#ffffff"


def marked(text: str) -> str:
    """Escaped, but for line breaks."""
    return in_figure(text).replace("&lt;br&gt;", "<br>")
