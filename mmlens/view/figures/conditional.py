"""What a unit's activation says of a picture, and what a picture's label says of the activation.

    view.conditional(mm.label_given_activation(values, labels))    # P(label | activation)
    view.conditional(mm.activation_given_label(values, labels))    # activation given the label

The horizontal axis is the activation in standard deviations from zero (Goh et al. 2021). Labels
given the activation are one line per label, with its exact 95 % interval as a band; activations
given the label a bar per label, from the 5th to the 95th percentile, with the median in it.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from mmlens.values.errors import AddressError
from mmlens.view.style import given, theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.numbers import keep
from mmlens.view.style.printed import plain
from mmlens.view.style.theme import in_figure

BOTH = ("label_given_activation", "activation_given_label")
AXIS = "activation, in standard deviations from zero"
_MOST = 7
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")


def conditional(table: Any, *, title: str | None = None) -> go.Figure:
    """A table of `label_given_activation` or `activation_given_label` as a figure.

    Raises:
        AddressError: another table, or more than 7 labels as lines.
    """
    if "probability" in getattr(table, "columns", ()):
        columns = ("start", "end", "label", "probability", "low", "high", "n")
        return _labels(given.table(table, columns, BOTH[0]), title)
    columns = ("label", "median", "spread", "low", "high", "n")
    return _activations(given.table(table, columns, " or ".join(BOTH)), title)


def _labels(table: Any, title: str | None) -> go.Figure:
    """P(label | bucket): a line and a band per label."""
    names = list(table["label"].unique())
    if len(names) > _MOST:
        raise AddressError(
            f"{len(names)} labels make more lines than can be told apart, which is {_MOST}: join"
            " some, as in labels = ['other' if ... else label ...]."
        )
    figure, c = Figure(), theme.colours()
    for i, name in enumerate(names):
        own = table[table["label"] == name].sort_values("start")
        x = ((own["start"] + own["end"]) / 2).tolist()
        text, colour = in_figure(plain(str(name))), c["categories"][i]
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*own["high"], *own["low"][::-1]], fill="toself", mode="lines",
            line={"width": 0, "color": colour}, fillcolor=_faint(colour), hoverinfo="skip",
            showlegend=False, legendgroup=text,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=own["probability"].tolist(), mode="lines+markers", name=text, legendgroup=text,
            line={"color": colour, "width": 2.2, "dash": _DASHES[i]}, marker={"size": 8},
            customdata=own["n"].tolist(),
            hovertemplate=f"{text} at %{{x:.1f}} SD: <b>%{{y:.0%}}</b> of %{{customdata}}"
                          "<extra></extra>",
        )  # fmt: skip
    low, high = int(table["n"].min()), int(table["n"].max())
    per = f"{low}" if low == high else f"{low} to {high}"
    theme.finish(
        figure,
        given.title(title, "What a picture shows, given the activation"),
        f"share of each label by bucket of activation, {per} pictures each, 95 % intervals",
        height=400,
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        xaxis={"title": AXIS, "zeroline": True},
        yaxis={"title": "P(label | activation)", "range": [-0.02, 1.02], "tickformat": ".0%"},
    )
    return keep(figure, table)


def _activations(table: Any, title: str | None) -> go.Figure:
    """The activations of each label: a bar with its median."""
    figure, c = Figure(), theme.colours()
    names = [in_figure(plain(str(name))) for name in table["label"]]
    places = list(range(len(names)))
    for place, row in zip(places, table.to_dict("records"), strict=True):
        figure.add_scatter(
            x=[row["low"], row["high"]], y=[place, place], mode="lines", hoverinfo="skip",
            line={"color": c["line"], "width": 9}, showlegend=False,
        )  # fmt: skip
    figure.add_scatter(
        x=table["median"].tolist(), y=places, mode="markers", showlegend=False,
        text=names, customdata=table["n"].tolist(),
        marker={"color": c["categories"][0], "size": 10},
        hovertemplate="%{text}: median <b>%{x:.1f}</b> SD of %{customdata} pictures<extra></extra>",
    )  # fmt: skip
    theme.finish(
        figure,
        given.title(title, "The activation, given what a picture shows"),
        "median, and 5th to 95th percentile",
        height=150 + 30 * len(names),
        xaxis={"title": AXIS, "zeroline": True},
        yaxis={"range": [len(names) - 0.5, -0.5], "tickvals": places, "ticktext": names,
               "automargin": True, "showgrid": False},
    )  # fmt: skip
    return keep(figure, table)


def _faint(colour: str) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},0.16)"
