"""A table of neurons as points: layer, unit, score, and what each decodes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from mmlens.values.arguments import count, instance, number
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores
from mmlens.view.style import given, theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.numbers import keep
from mmlens.view.style.printed import label, plain, visible
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import capital, quantity

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 8
_ACTIVE = ("mean activation", "activation of neurons", "score of T-neurons")
"""Numbers that raise and lower nothing."""


def neurons(table: pd.DataFrame | Scores, *, k: int = 100, title: str | None = None) -> go.Figure:
    """Layer by unit, one point per row; area by score, blue raises, red lowers, words on hover.

    Args:
        table: columns neuron and score; patch and words are shown where there are any. Or
            Scores(layer, unit), of which the `k` of largest magnitude are shown.

    Raises:
        AddressError: no such columns or axes, or no rows.
    """
    told, size, effect = "Which neurons, in which layer", "score", True
    if isinstance(table, Scores):
        size = quantity(given.scores(table, "table"))
        effect = size not in _ACTIVE
        told = told if effect else _asked(table, size)
        table = _strongest(given.scores(table, "table"), k)
    table = given.table(table, ("neuron", "score"), "mm.top_neurons(scores)")
    for one in table.neuron:
        instance(one, "table['neuron']", Neuron, "Neurons, as in Neuron(3, 17)")
    scores = [number(score, "table['score']") for score in table.score]
    top = max(map(abs, scores)) or 1.0
    c = theme.colours()
    said = table.words if "words" in table.columns else [[] for _ in scores]
    first = [in_figure(visible(words[0])) if len(words) else "" for words in said]
    named = _apart(list(table.neuron), scores)
    figure = Figure(
        go.Scatter(
            x=[neuron.unit for neuron in table.neuron],
            y=[neuron.layer for neuron in table.neuron],
            mode="markers+text",
            text=[
                f"{neuron} {first[i]}" if i in named else ""
                for i, neuron in enumerate(table.neuron)
            ],
            textposition="top center",
            textfont={"size": 11.5, "color": c["muted"]},
            marker={
                "size": [8 + 20 * (abs(score) / top) ** 0.5 for score in scores],
                "color": [c["raises"] if score >= 0 else c["lowers"] for score in scores],
                "opacity": 0.75,
                "line": {"width": 1, "color": c["page"]},
            },
            customdata=_told(table),
            hovertemplate="%{customdata}<extra></extra>",
            cliponaxis=False,
        )
    )
    layers = [neuron.layer for neuron in table.neuron]
    own = len(set(table.neuron))
    many = f"{own} neuron{'s' * (own != 1)}"
    signs = "blue raises, red lowers" if effect else "blue above 0, red below"
    signs = f", {signs}" if effect or min(scores) < 0 else ""
    many += f", {len(table)} points" if own < len(table) else ""
    theme.finish(
        figure,
        given.title(title, told),
        f"{many}; area by {size} (largest {top:.3g}){signs}",
        height=460,
        showlegend=False,
        xaxis={"title": "unit", "zeroline": False, **_whole([one.unit for one in table.neuron])},
        yaxis={
            "title": "layer",
            "dtick": max(1, (max(layers) - min(layers)) // 16),
            "range": [min(layers) - 0.6, max(layers) + 0.8],
            "zeroline": False,
        },
    )
    return keep(figure, table)


def _asked(scores: Scores, size: str) -> str:
    """A title of numbers that raise and lower nothing."""
    if scores.about.get("method") == "text_neurons":
        word = scores.about.get("of")
        return "T-neurons" + (f" of “{plain(word)}”" if isinstance(word, str) else "")
    return f"{capital(size).removesuffix(' of neurons')} of neurons"


def _whole(units: list[int]) -> dict[str, Any]:
    """Ticks at whole numbers, also where few units lie side by side."""
    few = max(units) - min(units) < 8
    return {"dtick": 1, "range": [min(units) - 3, max(units) + 3]} if few else {}


def _strongest(scores: Scores, k: int) -> pd.DataFrame:
    """The `k` neurons of largest magnitude, with their signed scores."""
    if set(scores.axes) != {"layer", "unit"}:
        raise AddressError(
            f"Neurons have a layer and a unit, and {scores!r} has other axes: reduce it, as in"
            " scores.sum('pos')."
        )
    table = scores.abs().to_frame(k)
    layers = [count(one, "a label of the axis layer", least=0) for one in table.layer]
    units = [count(one, "a label of the axis unit", least=0) for one in table.unit]
    table.insert(0, "neuron", [Neuron(*pair) for pair in zip(layers, units, strict=True)])
    table["score"] = [scores.sel(neuron).item() for neuron in table["neuron"]]
    return table


def _apart(shown: list[Neuron], scores: list[float]) -> set[int]:
    """The rows to name: the strongest, each neuron once, without overlapping names."""
    width = max(max(n.unit for n in shown) - min(n.unit for n in shown), 1)
    named: set[int] = set()
    for i in sorted(range(len(scores)), key=lambda i: -abs(scores[i])):
        near = [
            other
            for other in named
            if shown[other].layer == shown[i].layer
            and abs(shown[other].unit - shown[i].unit) < 0.15 * width
        ]
        if not near and len(named) < _NAMED:
            named.add(i)
    return named


def _told(table: pd.DataFrame) -> list[str]:
    lines = []
    for row in table.to_dict("records"):
        text = f"<b>{row['neuron']}</b> {row['score']:+.4g}"
        if row.get("patch") is not None:
            text += f" at {in_figure(label(row['patch']))}"
        words = row.get("words")
        if words is not None and len(words):
            end = " at its negative activation" if row.get("sign", 1) < 0 else ""
            first = " ".join(in_figure(visible(word)) for word in words[:8])
            text += f"<br>decodes{end} to {first}"
        lines.append(text)
    return lines
