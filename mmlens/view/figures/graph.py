"""A graph of edges as columns of nodes: units of the encoder, neurons, a word.

    view.graph(mm.neuron_graph(model, prompt, " dog", after=" a"))
    view.graph(mm.attribution_graph(model, prompt, " dog", after=" a"))     # `layered_graph`

A line's width is the size of its score, its colour the sign: blue raises, red lowers. The edge that
was checked by silencing shows both numbers on hover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from mmlens.values.arguments import count, number
from mmlens.values.errors import AddressError
from mmlens.values.graph_tables import AttributionGraph
from mmlens.view.figures.layered_graph import layered
from mmlens.view.style import given, theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.numbers import keep
from mmlens.view.style.printed import label, plain, visible
from mmlens.view.style.theme import in_figure

if TYPE_CHECKING:
    import pandas as pd

_CALL = "mm.neuron_graph(model, prompt, ' dog')"
_MOST = 200


def graph(
    table: pd.DataFrame | AttributionGraph, *, title: str | None = None, k: int = 60
) -> go.Figure:
    """Nodes in columns, sources left of what they feed; lines as wide as their score.

    Args:
        table: columns source, target, score; pos and ablation are shown where there are any.
            Edges over which a longer way leads as well are left to the longer way. Or an
            AttributionGraph: its columns are layers, and lines are as wide as their influence.
        k: how many edges of an AttributionGraph are drawn, those of most influence.

    Raises:
        AddressError: no such columns or rows, several prompts, a circle, or more edges than can be
            read.
    """
    k = count(k, "k", most=_MOST)
    if isinstance(table, AttributionGraph):
        return layered(table, k, title)
    table = given.table(table, ("source", "target", "score"), _CALL)
    if len(table) > _MOST:
        raise AddressError(f"{len(table)} edges are more than can be read: take {_MOST} at most.")
    prompts = set(table["prompt"]) if "prompt" in table.columns else set()
    if len(prompts) > 1:
        raise AddressError(
            f"These are edges of {len(prompts)} prompts, and a graph shows one: write"
            " view.graph(table[table['prompt'] == 0])."
        )
    depth = _depths(list(zip(map(str, table["source"]), map(str, table["target"]), strict=True)))
    spots = _spots(depth)
    drawn: Any = table.to_dict("records")
    for row in drawn:
        number(row["score"], "table['score']")
    drawn = [row for row in drawn if depth[str(row["source"])] - depth[str(row["target"])] == 1]
    largest: dict[int, float] = {}
    for row in drawn:
        level = depth[str(row["target"])]
        largest[level] = max(largest.get(level, 1e-12), abs(row["score"]))
    figure = Figure()
    for row in drawn:
        figure.add_trace(_line(row, spots, abs(row["score"]) / largest[depth[str(row["target"])]]))
    figure.add_trace(_nodes(spots, table))
    rows = max(list(depth.values()).count(level) for level in set(depth.values()))
    theme.finish(
        figure,
        given.title(title, f"What feeds {_ends(depth)}"),
        "width by score, within a column; blue raises, red lowers; both numbers on hover",
        height=max(320, 34 * rows + 120),
        showlegend=False,
        xaxis={"visible": False, "range": [-0.35, max(depth.values()) + 0.35]},
        yaxis={"visible": False, "range": [-0.06, 1.06]},
    )
    return keep(figure, table)


def _depths(edges: list[tuple[str, str]]) -> dict[str, int]:
    """How far each node is from the end, by the longest way."""
    depth = {node: 0 for edge in edges for node in edge}
    for _ in range(len(depth) + 1):
        moved = False
        for source, target in edges:
            if depth[source] < depth[target] + 1:
                depth[source], moved = depth[target] + 1, True
        if not moved:
            return depth
    raise AddressError("These edges form a circle, so no node comes first: leave one out.")


def _ends(depth: dict[str, int]) -> str:
    """What nothing follows, in a title."""
    ends = [node for node in depth if depth[node] == 0]
    return f"“{plain(ends[0])}”" if len(ends) == 1 else f"{len(ends)} ends"


def _spots(depth: dict[str, int]) -> dict[str, tuple[float, float]]:
    """(x, y) of each node: the end at the right, each column spread from top to bottom."""
    last, spots = max(depth.values()), {}
    for level in range(last + 1):
        own = [node for node in depth if depth[node] == level]
        for i, node in enumerate(own):
            spots[node] = (float(last - level), 1 - (i + 0.5) / len(own))
    return spots


def _line(row: dict[str, Any], spots: dict[str, tuple[float, float]], share: float) -> go.Scatter:
    c = theme.colours()
    ends = [spots[str(row[end])] for end in ("source", "target")]
    middle = tuple((a + b) / 2 for a, b in zip(*ends, strict=True))
    told = f"{in_figure(visible(str(row['source'])))} to {in_figure(visible(str(row['target'])))}"
    told += f"<br>attribution {row['score']:+.3g}"
    if not given.missing(row.get("ablation")):
        told += f"<br>silencing it takes {row['ablation']:+.3g}"
    if not given.missing(row.get("pos")):
        told += f"<br>at {in_figure(label(row['pos']))}"
    return go.Scatter(
        x=[ends[0][0], middle[0], ends[1][0]],
        y=[ends[0][1], middle[1], ends[1][1]],
        mode="lines",
        line={"width": 0.5 + 6 * share, "color": c["raises"] if row["score"] >= 0 else c["lowers"]},
        opacity=0.65,
        hovertemplate=told + "<extra></extra>",
    )


def _nodes(spots: dict[str, tuple[float, float]], table: pd.DataFrame) -> go.Scatter:
    c, words = theme.colours(), dict(table.attrs.get("words") or {})
    hover = [
        in_figure(" ".join(visible(one) for one in list(words.get(node, ()))[:8])) or
        in_figure(visible(node)) for node in spots
    ]  # fmt: skip
    return go.Scatter(
        x=[x for x, _ in spots.values()],
        y=[y for _, y in spots.values()],
        mode="markers+text",
        text=[in_figure(visible(node)) for node in spots],
        textposition=["bottom center" if y < 0.5 else "top center" for _, y in spots.values()],
        textfont={"size": 11.5, "color": c["ink"], "shadow": "auto"},
        marker={"size": 9, "color": c["muted"], "line": {"width": 1, "color": c["page"]}},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        cliponaxis=False,
    )
