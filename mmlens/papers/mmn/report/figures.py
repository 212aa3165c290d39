"""A figure of each summary: points with their intervals, curves with bands, a matrix, bars.

Most are strips: one panel per quantity, one line per arm, a point at the mean with its 95 %
interval. Blue is what the experiment is about, grey what it is compared with, green the upper end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.papers.interval_plots import colours, finish, ink, marked, spread, strips
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.view.style import theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.theme import in_figure

MEANS = "means over pictures with 95 % intervals (studentised bootstrap)"


def figure(found: Outcome) -> go.Figure | None:
    """The figure of one experiment in the theme in use; None where there is none to draw."""
    makers = {
        "E1": _translates,
        "E2": _projection,
        "E3": _regions,
        "E4": _classes,
        "E5": _ablation,
        "E6": _layers,
        "faithfulness": _faithful,
        "sensitivity": _sensitive,
        "readings": _readings,
    }
    return makers[found.key](found.summary) if len(found.summary) and found.key in makers else None


def _translates(rows: Any) -> go.Figure:
    arms = {"caption": "the caption", "neurons": "the best unit", "random": "wrong pictures"}
    return strips(
        rows.assign(panel=rows["metric"]), arms, "Which words fit the picture",
        f"score by metric; {MEANS}",
    )  # fmt: skip


def _projection(rows: Any) -> go.Figure:
    arms = {
        "nouns": "human nouns",
        "caption": "the caption",
        "prompt": "projected patches",
        "random": "random vectors",
    }
    rows = rows[~rows["metric"].str.startswith("D of")]
    order = {"mean": "mean over patches", "max": "best patch"}
    panel = rows["metric"] + "<br>" + rows["over"].map(order)
    return strips(
        rows.assign(panel=panel), arms, "What the nearest words of projected patches say",
        f"score of the 5 nearest tokens; {MEANS}",
    )  # fmt: skip


def _regions(rows: Any) -> go.Figure:
    own = rows[(rows["metric"] == "IoU") & (rows["concept"] != "all")]
    gap = own[own["arm"] == "attributed - random"].sort_values("mean", ascending=False)
    arms = {name: name for name in gap["concept"]}
    kinds = {"random": "random units", "attributed": "top units"}
    parts = [own[own["arm"] == arm].assign(kind=kind) for arm, kind in kinds.items()]
    both = pd.concat(parts, ignore_index=True)
    both = both.assign(arm=both["concept"], panel="IoU with the thing's mask")
    colours = {"random units": "other", "top units": "own"}
    return strips(
        both, arms, "Where units look, and where the thing is",
        f"top 5 % of a unit's map against the mask, by concept; {MEANS}", kinds=colours,
    )  # fmt: skip


def _faithful(rows: Any) -> go.Figure:
    names = {"area": "probability left", "IoU of units": "IoU of units", "IoU of map": "IoU of map"}
    rows = rows[rows["metric"].isin(list(names))]
    where = {"image": "at the picture", "last": "at the last word"}
    panel = rows["metric"].map(names) + "<br>" + rows["at"].map(where)
    order = [m for m in rows["arm"].unique() if " - " not in m]
    return strips(
        rows.assign(panel=panel), {m: m for m in order}, "Which ranking of units is true",
        f"probability left: the less, the more faithful; {MEANS}",
    )  # fmt: skip


def _sensitive(rows: Any) -> go.Figure:
    names = {
        "units shared": "units shared<br>with default",
        "interpretable": "interpretable<br>share",
        "layer": "mean layer",
        "best text": "best text<br>(word overlap)",
        "IoU": "IoU",
        "drop": "probability<br>lost",
    }
    rows = rows[rows["metric"].isin(list(names))]
    order = [arm for arm in rows["arm"].unique() if " - " not in arm]
    panels = [names[m] for m in names if m in set(rows["metric"])]
    return strips(
        rows.assign(panel=rows["metric"].map(names)), {arm: arm for arm in order},
        "What each reading changes", f"each option alone, all others as by default; {MEANS}",
        panels=panels, line="default",
    )  # fmt: skip


def _readings(rows: Any) -> go.Figure:
    arms = {
        "attributed": "the picture's units",
        "other pictures": "units of other pictures",
        "random": "random units",
    }
    rows = rows[(rows["metric"] == "fits") & (rows["layer"] == "all")]
    return strips(
        rows.assign(panel=rows["through"]), arms, "Which reading of a unit fits the picture",
        f"share of units that say the word; {MEANS}",
    )  # fmt: skip


def _classes(rows: Any) -> go.Figure:
    cells = rows[rows["metric"] == "relative activation"]
    square = cells.pivot(index="arm", columns="concept", values="mean")
    names, own = ([in_figure(str(one)) for one in axis] for axis in (square.columns, square.index))
    values = square.to_numpy(dtype=float)
    low = min(0.0, float(np.nanmin(values, initial=0.0)))
    figure = Figure(
        go.Heatmap(
            z=values, x=names, y=own, colorscale=theme.scale("sequential"), zmin=low, zmax=1,
            xgap=2, ygap=2, colorbar=theme.colourbar("share of the row's largest"),
            hovertemplate="units of %{y}, pictures of %{x}: <b>%{z:.3f}</b><extra></extra>",
        )
    )  # fmt: skip
    places = [(x, y, v) for y, row in zip(own, values, strict=True)
              for x, v in zip(names, row, strict=True) if np.isfinite(v)]  # fmt: skip
    figure.add_scatter(
        x=[x for x, _, _ in places], y=[y for _, y, _ in places], mode="text", hoverinfo="skip",
        text=[f"{v:.2f}" for _, _, v in places], showlegend=False,
        textfont={"size": 12.5, "color": [ink((v - low) / (1 - low)) for _, _, v in places]},
    )  # fmt: skip
    return finish(
        figure, "Mean activation of each class's units on pictures of each class",
        "each row divided by its largest; the diagonal is the own class",
        height=170 + 34 * len(own),
        xaxis={"title": "pictures of", "automargin": True, "showgrid": False},
        yaxis={"title": "units of", "autorange": "reversed", "automargin": True, "showgrid": False},
    )  # fmt: skip


def _ablation(rows: Any) -> go.Figure:
    c = colours()
    share = rows.assign(metric=rows["metric"].replace({"drop": "left"}))
    flip = share["metric"] == "left"
    share.loc[flip, ["mean", "low", "high"]] = 1 - share.loc[
        flip, ["mean", "high", "low"]
    ].to_numpy(dtype=float)
    texts = [m for m in share["metric"].unique() if m not in ("left", "probability")]
    panels = {"left": "probability of the noun, of what it was"} | {
        m: f"caption: {m}" for m in texts if m != "caption unchanged"
    }
    ks = sorted(int(k) for k in share["k"].unique())
    titles = [f"<b>{marked(p)}</b>" for p in panels.values()]
    figure: Any = make_subplots(
        1, len(panels), horizontal_spacing=0.07, subplot_titles=titles, figure=Figure()
    )
    arms = {
        "attributed": ("own", "top units"),
        "interpretable": ("warm", "top interpretable units"),
        "random": ("other", "random units of the same layers"),
    }
    for column, metric in enumerate(panels, 1):
        for arm, (colour, name) in arms.items():
            own = share[(share["arm"] == arm) & (share["metric"] == metric)].sort_values("k")
            for trace in _band(own, [ks.index(int(k)) for k in own["k"]], name, c[colour]):
                trace.showlegend = bool(trace.showlegend) and column == 1
                figure.add_trace(trace, 1, column)
    figure.add_hline(0.2, line={"color": c["other"], "width": 1, "dash": "dot"}, col=1)
    figure = finish(
        figure, "What is left without the top units",
        f"units silenced, sorted by their score; {MEANS} (bands)", height=430,
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, hovermode="x unified",
    )  # fmt: skip
    figure.update_layout(margin={"t": 96})
    figure.update_annotations(font={"size": 12.5})
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(tickvals=list(range(len(ks))), ticktext=ks, zeroline=False)
    figure.update_xaxes(title={"text": "units silenced", "font": {"size": 13}})
    return figure


def _band(rows: Any, x: list[int], arm: str, colour: str) -> list[go.Scatter]:
    """A line and, behind it, its interval."""
    faint = f"rgba({','.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))},0.16)"
    low, high = (rows[name].fillna(rows["mean"]) for name in ("low", "high"))  # k = 0 has none
    edge = [*high, *low[::-1]]
    quiet: dict[str, Any] = {"hoverinfo": "skip", "showlegend": False, "legendgroup": arm}
    behind = go.Scatter(x=[*x, *x[::-1]], y=edge, fill="toself", fillcolor=faint,
                        line={"width": 0}, mode="lines", **quiet)  # fmt: skip
    line = go.Scatter(
        x=x, y=rows["mean"], mode="lines+markers", name=arm, legendgroup=arm, showlegend=True,
        line={"color": colour, "width": 2}, marker={"size": 7},
        hovertemplate="<b>%{y:.3f}</b>",
    )  # fmt: skip
    return [behind, line]


def _layers(rows: Any) -> go.Figure:
    c = colours()
    figure = Figure()
    for arm, colour in (("all", c["own"]), ("interpretable", c["warm"])):
        own = rows[(rows["metric"] == "share") & (rows["arm"] == arm)].sort_values("layer")
        counts = rows[(rows["metric"] == "units") & (rows["arm"] == arm)].set_index("layer")["mean"]
        figure.add_bar(
            x=own["layer"], y=own["mean"], name=f"{arm} units", marker_color=colour,
            error_y={"type": "data", "symmetric": False, "width": 0, "color": c["ink"],
                     "thickness": 1.5, **spread(own)},
            customdata=[counts.get(layer, 0) for layer in own["layer"]],
            hovertemplate="layer %{x}: <b>%{y:.1%}</b> of a picture's units;"
                          " %{customdata:.0f} different ones in all<extra></extra>",
        )  # fmt: skip
    return finish(
        figure, "In which layers a picture's top units lie",
        f"share of the different units among the top 100 pairs; {MEANS}", height=380,
        bargap=0.25, legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        xaxis={"title": "layer", "dtick": max(1, len(set(rows["layer"])) // 16)},
        yaxis={"tickformat": ".0%"},
    )  # fmt: skip
