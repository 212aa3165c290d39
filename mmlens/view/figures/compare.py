"""The same Scores of several models (or versions of one), on one scale.

    view.compare({"plain": a, "edited": b})                 # Scores(layer): a line each
    view.compare({"plain": a, "edited": b}, picture=photo)  # Scores(pos): a picture each
    view.compare({"limber": a, "pictos": b})                # Scores(layer, ...): maps side by side

Models of different depth are aligned by relative depth: layer / (layers - 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores
from mmlens.view.figures.curves import curves
from mmlens.view.figures.heatmap import axis_of, cells
from mmlens.view.figures.panels import panels, picture_axis
from mmlens.view.style import given, theme
from mmlens.view.style.figure import Figure
from mmlens.view.style.printed import label, plain
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import quantity, title_of

_MOST = 4


def compare(
    results: Mapping[str, Scores], picture: Any = None, *, title: str | None = None, **options: Any
) -> go.Figure:
    """Scores of the same axes, one per model, as one figure with one scale.

    Args:
        results: name -> Scores of one axis (layer, patches or labels) or of two.
        picture: the photo, for Scores over its patches.
        options: for maps of a picture, those of `view.panels`.

    Raises:
        AddressError: fewer than two results, different axes, or labels that differ.
    """
    results = given.by_name(results, "results", "a mapping from names to Scores, {'a': s, 'b': t}")
    results = {name: given.scores(s, f"results[{name!r}]") for name, s in results.items()}
    parts = list(results.values())
    if len(parts) < 2 or any(part.axes != parts[0].axes for part in parts):
        raise AddressError(
            "A comparison needs two or more Scores of the same axes, and these have"
            f" {[part.axes for part in parts]}: reduce them to the same, as in"
            " scores.sum('unit')."
        )
    axes = parts[0].axes
    told, about = title_of(_stripped(parts[0]))
    head = given.title(title, f"{told}, by model")
    if axes == ("layer",):
        return _by_depth(results, head)
    if len(axes) == 1 and picture_axis(parts[0]):
        return panels(_stacked(results), picture, title=head, **options)
    if len(axes) == 1:
        return _bars(results, head, about)
    if len(axes) == 2:
        return _maps(results, head, about)
    raise AddressError(
        f"A comparison shows Scores of one axis or two, and {parts[0]!r} has {len(axes)}: narrow"
        " each with .sel(...)."
    )


def _stripped(scores: Scores) -> Scores:
    """Scores without their model's name, which would be shown for all."""
    about = {k: v for k, v in scores.about.items() if k not in ("model", "clean")}
    return Scores(scores.values, scores.axes, scores.labels, about)


def _stacked(results: Mapping[str, Scores]) -> Scores:
    """Scores(model, axis) of results with the same labels."""
    import torch

    parts = list(results.values())
    first = parts[0]
    (axis,) = first.axes
    if any(list(part.of(axis)) != list(first.of(axis)) for part in parts):
        raise AddressError(
            f"The labels of {axis!r} differ between {' and '.join(results)}: narrow each to the"
            f" labels that all have, as in scores.sel({axis}=[...])."
        )
    values = torch.stack([part.values.float().cpu() for part in parts])
    labels = {"model": tuple(results), axis: tuple(first.of(axis))}
    return Scores(values, ("model", axis), labels, _stripped(first).about)


def _by_depth(results: Mapping[str, Scores], title: str) -> go.Figure:
    sizes = {part.shape[0] for part in results.values()}
    if len(sizes) == 1:
        return curves(_stacked(results), title=title)
    c = theme.colours()["categories"]
    figure = Figure()
    for i, (name, part) in enumerate(results.items()):
        n = part.shape[0]
        figure.add_scatter(
            x=np.arange(n) / max(n - 1, 1), y=part.numpy(), mode="lines+markers",
            name=in_figure(plain(name)), line={"color": c[i % len(c)], "width": 2.2},
            customdata=list(part.of("layer")),
            hovertemplate=f"{in_figure(plain(name))}, layer %{{customdata}}: <b>%{{y:.4g}}</b>"
                          "<extra></extra>",
        )  # fmt: skip
    first = next(iter(results.values()))
    depths = ", ".join(f"{name} has {part.shape[0]} layers" for name, part in results.items())
    return theme.finish(
        figure, title, f"{quantity(first)} · {depths}", height=400,
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        xaxis={"title": "depth: layer / (layers − 1)", "range": [-0.03, 1.03]},
        yaxis={"title": in_figure(quantity(first)), "rangemode": "tozero"},
    )  # fmt: skip


def _bars(results: Mapping[str, Scores], title: str, about: str) -> go.Figure:
    """Grouped bars: one group per label."""
    both = _stacked(results)
    axis = both.axes[1]
    names = [in_figure(label(one)) for one in both.of(axis)]
    c = theme.colours()["categories"]
    figure = Figure()
    for i, (name, values) in enumerate(zip(results, both.numpy(), strict=True)):
        told = in_figure(plain(name))
        figure.add_bar(
            x=np.arange(len(names)), y=values, name=told,
            marker={"color": c[i % len(c)]}, customdata=names,
            hovertemplate=f"{told}, %{{customdata}}: <b>%{{y:.4g}}</b><extra></extra>",
        )  # fmt: skip
    return theme.finish(
        figure, title, about, height=400, barmode="group",
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        xaxis={"title": in_figure(axis), "tickvals": list(range(len(names))), "ticktext": names,
               "showgrid": False, "automargin": True},
        yaxis={"title": in_figure(quantity(both))},
    )  # fmt: skip


def _maps(results: Mapping[str, Scores], title: str, about: str) -> go.Figure:
    """Heat maps side by side, one colour scale for all."""
    if len(results) > _MOST:
        raise AddressError(
            f"{len(results)} maps side by side cannot be read: compare at most {_MOST}."
        )
    every = np.concatenate([part.numpy().ravel() for part in results.values()])
    figure: Any = make_subplots(
        1, len(results), subplot_titles=[in_figure(plain(name)) for name in results],
        horizontal_spacing=0.12 / (len(results) - 1), figure=Figure(),
    )  # fmt: skip
    tallest = 0
    for i, part in enumerate(results.values()):
        heat, (up, rows), (across, columns) = cells(part, every)
        heat.showscale = i == len(results) - 1
        figure.add_trace(heat, 1, i + 1)
        figure.update_xaxes(
            axis_of(across, columns, most=12), row=1, col=i + 1, showgrid=False, automargin=True
        )
        own = axis_of(up, rows) if i == 0 else {**axis_of(up, rows), "title": None}
        down = "reversed" if up != "layer" else True
        figure.update_yaxes(own, row=1, col=i + 1, showgrid=False, autorange=down, automargin=True)
        tallest = max(tallest, len(rows))
    figure.update_annotations(font={"size": 13}, yshift=4)
    theme.finish(figure, title, about, height=min(max(220 + 22 * tallest, 360), 800))
    return figure.update_layout(margin={"t": figure.layout.margin.t + 22})
