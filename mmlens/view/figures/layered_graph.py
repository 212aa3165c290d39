"""An attribution graph as columns: what enters at the left, the layers in running order, the word.

    view.graph(mm.attribution_graph(model, prompt, " dog", after=" a"))

A line's width is the influence that passes along it, its colour the sign of what is given. Within a
column nodes stand in the order of their positions. Biases and what was left out are not drawn: the
line below the title says how much of the influence ends where.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from mmlens.values.errors import AddressError
from mmlens.values.graph_tables import BIASES, ERROR, INPUT, LEFT_OUT, WORD, AttributionGraph
from mmlens.view.style import given, theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.numbers import keep
from mmlens.view.style.printed import label, plain, visible
from mmlens.view.style.theme import in_figure

Spots = dict[str, tuple[float, float]]
GOLDEN = 0.618
"""Neighbouring columns stand at other heights, so that a line passes between the nodes."""


def layered(found: AttributionGraph, k: int, title: str | None) -> go.Figure:
    """The `k` edges of most influence that lead on to the word.

    Raises:
        AddressError: there is none.
    """
    edges = _drawn(found, k)
    if not len(edges):
        raise AddressError(
            f"In {found!r} no edge leads to the word: make it with a larger share= or k=."
        )
    nodes = found.nodes[found.nodes["node"].isin({*edges["source"], *edges["target"]})]
    spots, rows = _spots(nodes)
    figure, largest = Figure(), float(edges["influence"].max())
    for row in edges.sort_values("influence").to_dict("records"):
        figure.add_trace(_line(row, spots, row["influence"] / largest))
    figure.add_trace(_nodes(nodes, spots))
    ends = found.ends()["influence"]
    several = len(edges) < int((~found.edges["source"].isin([BIASES, LEFT_OUT])).sum())
    told = f"the {len(edges)} edges of most influence; " if several else ""
    told += f"{ends[INPUT]:.0%} of influence comes from patches and words"
    told += f", {ends[ERROR]:.0%} from errors" if ends[ERROR] else ""
    told += f", {ends[LEFT_OUT]:.0%} from what is left out; blue gives, red takes"
    end = str(nodes["node"][nodes["kind"] == WORD].iloc[0])
    theme.finish(
        figure,
        given.title(title, f"What gives “{plain(end)}” its logit"),
        told,
        height=max(340, 40 * rows + 130),
        showlegend=False,
        xaxis={"visible": False, "range": [-0.4, max(x for x, _ in spots.values()) + 0.1]},
        yaxis={"visible": False, "range": [-0.04, 1.08]},
        margin_l=20,
        margin_r=10 + 7 * min(len(visible(end)), 24),
        margin_b=20,
    )
    return keep(figure, edges)


def _drawn(found: AttributionGraph, k: int) -> Any:
    """The strongest edges, without those that lead nowhere."""
    edges = found.edges[~found.edges["source"].isin([BIASES, LEFT_OUT])]
    edges = edges.sort_values("influence", ascending=False, kind="stable").head(k)
    ends = set(found.nodes["node"][found.nodes["kind"] == WORD])
    while True:
        on = edges["target"].isin({*edges["source"], *ends})
        if on.all():
            return edges
        edges = edges[on]


def _spots(nodes: Any) -> tuple[Spots, int]:
    """(x, y) of each node, and the nodes of the fullest column."""
    spots: Spots = {}
    columns = {stage: i for i, stage in enumerate(sorted(set(nodes["stage"])))}
    most, last = 0, len(columns) - 1
    for stage, x in columns.items():
        own = nodes[nodes["stage"] == stage]
        names = [name for _, name in sorted(zip(map(_order, own["pos"]), own["node"], strict=True))]
        most = max(most, len(names))
        shift = 0.8 * ((x * GOLDEN) % 1 - 0.5) if 0 < x < last else 0.0
        for i, name in enumerate(names):
            spots[name] = (float(x), 1 - (i + 0.5 + shift) / len(names))
    return spots, most


def _order(pos: Any) -> tuple[Any, ...]:
    """Positions as they stand: pictures by row and column, then words."""
    if hasattr(pos, "row"):
        return (0, pos.image, pos.crop, pos.row, pos.col)
    return (1, getattr(pos, "image", 0), getattr(pos, "crop", 0), getattr(pos, "at", 0), 0)


def _line(row: dict[str, Any], spots: Spots, share: float) -> go.Scatter:
    c = theme.colours()
    (x0, y0), (x1, y1) = spots[row["source"]], spots[row["target"]]
    told = f"{in_figure(visible(row['source']))} to {in_figure(visible(row['target']))}"
    told += f"<br>gives {row['score']:+.3g}<br>influence {row['influence']:.1%}"
    return go.Scatter(
        x=[x0, (x0 + x1) / 2, x1],
        y=[y0, (y0 + y1) / 2, y1],
        mode="lines",
        line={"width": 0.6 + 6 * share, "color": c["raises"] if row["score"] >= 0 else c["lowers"]},
        opacity=0.6,
        hovertemplate=told + "<extra></extra>",
    )


def _nodes(nodes: Any, spots: Spots) -> go.Scatter:
    c = theme.colours()
    rows: list[Any] = nodes.to_dict("records")
    return go.Scatter(
        x=[spots[row["node"]][0] for row in rows],
        y=[spots[row["node"]][1] for row in rows],
        mode="markers+text",
        text=[in_figure(_name(row)) for row in rows],
        textposition=["middle right" if row["kind"] == WORD else "top center" for row in rows],
        textfont={"size": 11, "color": c["ink"], "shadow": "auto"},
        marker={
            "size": 9,
            "color": [c["muted"] if row["kind"] == INPUT else c["ink"] for row in rows],
            "symbol": ["diamond" if row["kind"] == ERROR else "circle" for row in rows],
            "line": {"width": 1, "color": c["page"]},
        },
        customdata=[_told(row) for row in rows],
        hovertemplate="%{customdata}<extra></extra>",
        cliponaxis=False,
    )


def _name(row: dict[str, Any]) -> str:
    """The unit and its position in a few letters."""
    if row["kind"] == WORD:
        return visible(row["node"])
    place = label(row["pos"])
    if row["kind"] == INPUT:
        return place
    return f"{str(row['node']).split(' ')[0]} {place}"


def _told(row: dict[str, Any]) -> str:
    told = f"{in_figure(visible(row['node']))}<br>influence {row['influence']:.1%}"
    told += f"<br>effect {row['effect']:+.3g}"
    if not given.missing(row["value"]):
        told += f"<br>value {row['value']:.3g}"
    return told + (f"<br>says {in_figure(visible(row['words']))}" if row["words"] else "")
