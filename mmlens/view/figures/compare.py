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
from mmlens.view.figures.lens import short
from mmlens.view.figures.panels import panels, picture_axis
from mmlens.view.style import given, theme
from mmlens.view.style.baselines import DRAWN, from_nothing
from mmlens.view.style.figure import Figure
from mmlens.view.style.printed import label, plain
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import AXES, axis_name, quantity, title_of

_MOST, _ROOM = 4, theme.WIDTH - 240


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
    results = {name: from_nothing(s, lines=axes == ("layer",)) for name, s in results.items()}
    told, about = _asked(results)
    head = given.title(title, told)
    results = _by_method(results)
    if axes == ("layer",):
        return _by_depth(results, head)
    alike = _alike(results)
    if len(axes) == 1 and picture_axis(parts[0]):
        options.setdefault("shared", alike)
        return panels(_stacked(results), picture, title=head, **options)
    if len(axes) == 1:
        return _bars(results, head, about)
    if len(axes) == 2:
        return _maps(results, head, about, alike)
    raise AddressError(
        f"A comparison shows Scores of one axis or two, and {parts[0]!r} has {len(axes)}: narrow"
        " each with .sel(...)."
    )


def _asked(results: Mapping[str, Scores]) -> tuple[str, str]:
    """Title and subtitle: one quantity of several models, or each with its own method."""
    told = {name: quantity(part) for name, part in results.items()}
    question, about = title_of(_stripped(next(iter(results.values()))))
    if _alike(results):
        return f"{question}, by model", about
    axes = [AXES.get(axis, axis) for axis in next(iter(results.values())).axes]
    title = f"{' and '.join(map(plain, results))}, by {' and '.join(axes)}"
    return title, " · ".join(f"{plain(name)}: {one}" for name, one in told.items())


def _alike(results: Mapping[str, Scores]) -> bool:
    """Whether all are of one quantity, as far as they say."""
    told = {quantity(part) for part in results.values() if part.about.get("method")}
    return len(told) <= 1


def _by_method(results: Mapping[str, Scores]) -> dict[str, Scores]:
    """The same results, each named with its own method where these differ."""
    alike = _alike(results)
    return {name if alike else f"{name}: {axis_name(part)}": part for name, part in results.items()}


def _together(results: Mapping[str, Scores]) -> str:
    """The name of the numbers on a shared axis."""
    return " or ".join(dict.fromkeys(axis_name(part) for part in results.values()))


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
    about = {**_stripped(first).about, DRAWN: _together(results)}
    return Scores(values, ("model", axis), labels, about)


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
    depths = ", ".join(f"{name} has {part.shape[0]} layers" for name, part in results.items())
    return theme.finish(
        figure, title, f"{_together(results)} · {depths}", height=400,
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        xaxis={"title": "depth: layer / (layers − 1)", "range": [-0.03, 1.03]},
        yaxis={"title": in_figure(_together(results)), "rangemode": "tozero"},
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
        yaxis={"title": in_figure(_together(results))},
    )  # fmt: skip


def _maps(results: Mapping[str, Scores], title: str, about: str, alike: bool) -> go.Figure:
    """Heat maps side by side, one colour scale for all that are of one quantity."""
    if len(results) > _MOST:
        raise AddressError(
            f"{len(results)} maps side by side cannot be read: compare at most {_MOST}."
        )
    every = np.concatenate([part.numpy().ravel() for part in results.values()])
    figure: Any = make_subplots(
        1, len(results), subplot_titles=[in_figure(short(plain(name), 40)) for name in results],
        horizontal_spacing=(0.12 if alike else 0.3) / (len(results) - 1), figure=Figure(),
    )  # fmt: skip
    tallest = 0
    for i, part in enumerate(results.values()):
        heat, (up, rows), (across, columns) = cells(part, every if alike else None)
        heat.name = list(results)[i]
        heat.showscale = i == len(results) - 1 or not alike
        figure.add_trace(heat, 1, i + 1)
        if not alike:
            heat = figure.data[-1]
            heat.colorbar.title.text = ""  # its title names the quantity
            heat.colorbar.x = figure.layout[f"xaxis{i + 1 if i else ''}"].domain[1] + 0.01
        figure.update_xaxes(
            axis_of(across, columns, most=12, room=_ROOM // len(results)),
            row=1,
            col=i + 1,
            showgrid=False,
            automargin=True,
        )
        own = axis_of(up, rows) if i == 0 else {**axis_of(up, rows), "title": None}
        down = "reversed" if up != "layer" else True
        figure.update_yaxes(own, row=1, col=i + 1, showgrid=False, autorange=down, automargin=True)
        tallest = max(tallest, len(rows))
    figure.update_annotations(font={"size": 13}, yshift=4)
    theme.finish(figure, title, about, height=min(max(220 + 22 * tallest, 360), 800))
    return figure.update_layout(
        margin={"t": figure.layout.margin.t + 22}, meta={"least": 110 + 240 * len(results)}
    )
