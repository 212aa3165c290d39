"""Lines over an axis of numbers: ablation curves with their controls, routes by layer, tracks.

    view.curves(patching.ablation_curve(...))     # Scores(arm, k)
    view.curves(patching.knockouts(...))          # Scores(route, layer)
    view.curves(relevance.covering_curves(...))   # Scores(curve, step)

The horizontal axis is `k`, otherwise `layer`, otherwise the last axis of numbers. Over an axis
`prompt` the mean is drawn with its 95 % interval (percentile bootstrap over prompts). Arms "random
1", "random 2", ... are one line: their mean, and, where there are no prompts, a band from the
smallest to the largest draw. The subtitle says which kind of band it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores
from mmlens.view.style import given, theme
from mmlens.view.style.baselines import DRAWN, from_nothing
from mmlens.view.style.figure import Figure
from mmlens.view.style.printed import plain
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import axis_name, quantity, title_of

_MOST, _DRAWS = 7, 2000
_ALONG = {"k": "k: how many units", "layer": "layer"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")


def curves(scores: Scores, *, title: str | None = None) -> go.Figure:
    """One line per label, over `k` or `layer`, with bands where there are several draws.

    Args:
        scores: an axis of numbers, at most one axis of lines (arm, route, token, model, ...), and
            optionally `prompt`.

    Raises:
        AddressError: other axes, or more than 7 lines.
    """
    scores = from_nothing(given.scores(scores), lines=True)
    along = along_axis(scores)
    others = [a for a in scores.axes if a not in (along, "prompt")]
    if along is None or len(others) > 1:
        raise AddressError(
            f"Curves need an axis of numbers (k, layer), at most one of lines, and perhaps"
            f" 'prompt'; {scores!r} has others: narrow it with .sel(...), or take view.heatmap."
        )
    lines, band = _lines(scores, along, others)
    if len(lines) > _MOST:
        raise AddressError(
            f"{scores!r} makes {len(lines)} lines, and at most {_MOST} can be told apart: narrow"
            f" it, as in scores.sel({others[0]}=[...]), or take view.heatmap."
        )
    x = [one if isinstance(one, (int, float)) else i for i, one in enumerate(scores.of(along))]
    figure = Figure()
    for i, (name, (middle, low, high)) in enumerate(lines.items()):
        _line(figure, x, name, middle, (low, high), i)
    clean = None if DRAWN in scores.about else scores.about.get("clean")
    if isinstance(clean, (int, float)):
        figure.add_hline(clean, line={"color": theme.colours()["muted"], "width": 1, "dash": "dot"})
    told, about = title_of(scores)
    notes = [about, band, "dotted: nothing changed" if clean is not None else ""]
    return theme.finish(
        figure,
        given.title(title, told),
        " · ".join(part for part in notes if part),
        height=400,
        showlegend=len(lines) > 1,
        legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        xaxis={"title": in_figure(_along(scores, along)), "zeroline": False, **_whole(x)},
        yaxis={"title": in_figure(axis_name(scores)), "zeroline": True, "rangemode": "tozero"},
    )


def _along(scores: Scores, along: str) -> str:
    """The name of the horizontal axis."""
    if along == "step" and "curve" in scores.axes:
        return "share of patches covered, or shown"
    return _ALONG.get(along, along)


def along_axis(scores: Scores) -> str | None:
    """The horizontal axis: k, otherwise layer, otherwise the last axis of numbers."""
    numeric = [
        a
        for a in scores.axes
        if a not in ("prompt", "unit", "dim")
        and all(isinstance(one, (int, float)) for one in scores.of(a))
    ]
    return next((a for a in ("k", "layer") if a in numeric), numeric[-1] if numeric else None)


def interval(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of the mean over the first axis: percentile bootstrap, 2,000 draws."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(values), (_DRAWS, len(values)))
    means = np.stack([values[rows].mean(0) for rows in drawn])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


Line = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def _lines(scores: Scores, along: str, others: Sequence[str]) -> tuple[dict[str, Line], str]:
    """Name -> (middle, low, high), and the description of the bands."""
    order = [a for a in ("prompt", *others, along) if a in scores.axes]
    values = np.transpose(scores.numpy(), [scores.axes.index(a) for a in order])
    values = values if "prompt" in scores.axes else values[None]
    values = values if others else values[:, None]
    names = [str(one) for one in scores.of(others[0])] if others else [quantity(scores)]
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault("random" if re.fullmatch(r"random \d+", name) else name, []).append(i)
    lines: dict[str, Line] = {}
    pooled = 0
    for name, rows in groups.items():
        own = values[:, rows]
        low = high = None
        if len(own) > 1:
            low, high = interval(own.mean(1))
        elif len(rows) > 1:
            low, high = own[0].min(0), own[0].max(0)
        pooled = max(pooled, len(rows))
        told = name if len(rows) == 1 else f"random, mean of {len(rows)}"
        lines[told] = (own.mean((0, 1)), low, high)
    band = f"mean and 95 % interval over {len(values)} prompts" if len(values) > 1 else ""
    if not band and pooled > 1:
        band = f"band: least to largest of {pooled} random draws"
    return lines, band


def _line(
    figure: go.Figure, x: list[float | int], name: str, middle: np.ndarray,
    band: tuple[np.ndarray | None, np.ndarray | None], at: int,
) -> None:  # fmt: skip
    c = theme.colours()
    colour = c["muted"] if name.startswith("random") else c["categories"][at % _MOST]
    low, high = band
    text = in_figure(plain(name))
    if low is not None and high is not None:
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines",
            line={"width": 0, "color": colour}, fillcolor=_faint(colour), hoverinfo="skip",
            showlegend=False, legendgroup=text,
        )  # fmt: skip
    spread = "" if low is None or high is None else " [%{customdata[0]:.4g}, %{customdata[1]:.4g}]"
    figure.add_scatter(
        x=x, y=middle, mode="lines+markers", name=text, legendgroup=text,
        line={"color": colour, "width": 2.2, "dash": _DASHES[at % _MOST]},
        marker={"symbol": _SYMBOLS[at % _MOST], "size": 8},
        customdata=None if low is None or high is None else np.stack([low, high], -1),
        hovertemplate=f"{text}, %{{x}}: <b>%{{y:.4g}}</b>{spread}<extra></extra>",
    )  # fmt: skip


def _faint(colour: str) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},0.18)"


def _whole(x: list[float | int]) -> dict[str, Any]:
    """Ticks at each number where there are few."""
    return {"tickvals": x} if len(x) <= 12 and all(float(one).is_integer() for one in x) else {}
