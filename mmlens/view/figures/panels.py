"""Many maps of one picture side by side: one per token, layer, head or neuron.

    view.panels(photo, maps)         Scores(token, pos): the attribution of each patch for each word
    view.panels(photo, grid)         Scores(layer, pos): patching, layer by layer
    view.panels(photo, heads)        Scores(layer, head, key): where every head attends

The axis of patches may be called pos, query or key. With two other axes the first is vertical and
the second horizontal. All panels share one scale, so that they can be compared; with `shared=False`
each has its own, as the subtitle says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mmlens.values.arguments import count, flag
from mmlens.values.errors import AddressError
from mmlens.values.labels import Patch, Token
from mmlens.values.pictures import open_picture
from mmlens.values.scores import Scores
from mmlens.view.figures.on_image import bar, pointer
from mmlens.view.style import given, theme
from mmlens.view.style.baselines import from_nothing, is_signed
from mmlens.view.style.figure import Figure
from mmlens.view.style.laid import lay
from mmlens.view.style.paint import Box, ground, painted, paper, span
from mmlens.view.style.printed import plain
from mmlens.view.style.theme import in_figure
from mmlens.view.style.titles import axis_name, quantity, title_of

MOST, _IN_ROW = 144, 24
_WIDTH, _GAP, _NAME, _LEFT, _RIGHT, _TOP = 760, 8, 22, 20, 90, 24
_LETTER = 7.3
"""The width of a letter above a panel."""
_BAR = 120
"""The least length of the colour bar."""
_PATCHED = ("pos", "key", "query")


def panels(
    scores: Any,
    picture: Any = None,
    *,
    image: int = 0,
    crop: str | int | None = None,
    box: Box | None = None,
    shared: bool = True,
    smooth: bool = False,
    mask: Any = None,
    columns: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """One small picture per label of the other axis (or two axes), as a plotly figure.

    Args:
        scores: patches on `pos`, `key` or `query`, and one or two other axes.
        picture: anything that `open_picture` reads, or None for no photo.
        image, crop, box, smooth, mask: as in `view.on_image`.
        shared: one scale for all panels; otherwise each has its own.
        columns: panels in a row, where there is one other axis.

    Raises:
        AddressError: no patches, other axes, or more than 144 panels.
    """
    scores, picture = given.scores_first(scores, picture)
    scores, title = given.scores(scores), given.title(title)
    shared, smooth = flag(shared, "shared"), flag(smooth, "smooth")
    axis = picture_axis(scores)
    others = tuple(name for name in scores.axes if name != axis)
    if axis is not None and len(others) == 2 and 1 in (alone := _sizes(scores, others)):
        only = others[alone.index(1)]  # of one layer: its panels stand in rows as wide as they need
        scores = scores[tuple(0 if name == only else slice(None) for name in scores.axes)]
        others = tuple(name for name in others if name != only)
    if axis is None or len(others) not in (1, 2):
        raise AddressError(
            f"Panels need an axis of patches and one or two others, and {scores!r} has"
            f" {'no patches' if axis is None else f'{len(others)} others'}: narrow it with"
            " .sel(...), or take view.on_image for one map."
        )
    scores = from_nothing(scores)
    values = np.moveaxis(scores.numpy(), scores.axes.index(axis), -1)
    many = int(np.prod(values.shape[:-1]))
    if not 0 < many <= MOST:
        raise AddressError(
            f"{scores!r} makes {many} panels, and at most {MOST} can be read: narrow it, as in"
            f" scores.sel({others[0]}=[...])."
        )
    across = values.shape[1] if len(others) == 2 else _columns(many)
    if len(others) == 1 and columns is not None:
        across = count(columns, "columns", most=_IN_ROW)
    if across > _IN_ROW:
        raise AddressError(
            f"{scores!r} puts {across} panels in a row, and at most {_IN_ROW} have room: narrow it,"
            f" as in scores.sel({others[-1]}=[...])."
        )
    flat = values.reshape(many, -1)
    laid = lay(scores.of(axis), scores.about, repr(scores), image=image, crop=crop)
    grids = [laid.grid(row) for row in flat]
    photo = open_picture(picture) if picture is not None else paper(*grids[0].shape)
    look = {
        "box": laid.box(photo) if box is None else box,
        "smooth": smooth,
        "mask": mask,
        "shared": shared,
        "signed": is_signed(scores),
        "name": quantity(scores),
        "short": axis_name(scores),
    }
    figure, height = _drawn(photo, grids, across, len(others) == 1, look)
    figure.add_trace(_bar(photo, grids, look))
    if across == 1:  # a single column leaves room: its bar stands beside it
        _bar_in(figure).x = _layout(figure).xaxis.domain[1] + 0.02
    _named(figure, [list(scores.of(name)) for name in others], others)
    told, about = title_of(scores)
    note = "" if shared else "each panel has its own scale"
    signed, _ = span(np.stack(grids), signed=is_signed(scores))
    signs = "blue raises, red lowers" if signed else ""
    place = f"drawn: the {laid.name}" if laid.name != "picture" else ""
    notes = [about, place, signs, note, "outlined: the mask" if mask is not None else ""]
    theme.finish(figure, title or told, " · ".join(part for part in notes if part), width=_WIDTH)
    traces: Any = figure.data
    for trace, name in zip(traces, _all_names(scores, others), strict=False):
        trace.name = in_figure(name)
    names = {"rows": -(-many // across), "tall": _NAME} if len(others) == 1 else None
    top, more = _layout(figure).margin.t + _TOP, max(0, _BAR - height)
    left = _LEFT + (30 if len(others) == 2 else 0)
    figure.update_layout(
        height=height + top + 30 + more,
        meta={"least": min(_WIDTH, 110 + 64 * across), "names": names},
        margin={"t": top, "b": 30 + more, "l": left, "r": _RIGHT},
    )
    if more:  # a bar no shorter than its numbers can be read
        short = {"len": _BAR, "lenmode": "pixels", "y": 1, "yanchor": "top"}
        _bar_in(figure).update(short)
    theme.upright(figure)
    return figure


def _sizes(scores: Scores, axes: Sequence[str]) -> list[int]:
    return [len(scores.of(axis)) for axis in axes]


def _layout(figure: Any) -> Any:
    return figure.layout


def _bar_in(figure: Any) -> Any:
    """The colour bar of a figure's last trace."""
    return figure.data[-1].marker.colorbar


def _all_names(scores: Scores, others: Sequence[str]) -> list[str]:
    """The name of every panel, in order."""
    names = [[called(axis, one, 99) for one in scores.of(axis)] for axis in others]
    return [" ".join(parts) for parts in product(*names)]


def picture_axis(scores: Scores) -> str | None:
    """The axis whose labels are patches; of two, the keys."""
    found = [a for a in _PATCHED if a in scores.axes and any_patch(scores.of(a))]
    return found[0] if found else None


def any_patch(labels: Sequence[Any]) -> bool:
    return any(isinstance(one, Patch) for one in labels)


def _columns(many: int) -> int:
    """The number of panels per row: rows of equal length, of at most six."""
    rows = -(-many // 6)
    return -(-many // rows)


def _drawn(
    photo: Any, grids: list[np.ndarray], across: int, named: bool, look: dict[str, Any]
) -> tuple[Figure, int]:
    """The panels at their positions, and the height of the figure in pixels."""
    inner = _WIDTH - _LEFT - _RIGHT - (0 if named else 30)
    wide = (inner - _GAP * (across - 1)) / across
    wide = min(wide, 200 if across > 2 else 300)
    tall = wide * photo.height / photo.width
    step = tall + (_NAME if named else _GAP)
    rows = -(-len(grids) // across)
    height = rows * step
    area = given.box(look["box"], photo)
    figure = Figure()
    for i, grid in enumerate(grids):
        column, row, n = i % across, i // across, i + 1 if i else ""
        signed, limit = span(np.stack(grids) if look["shared"] else grid, signed=look["signed"])
        source = painted(
            photo, grid, signed, limit, area, smooth=look["smooth"],
            mask=look["mask"], side=round(min(2 * wide, 320)),
        )  # fmt: skip
        left, top = column * (wide + _GAP), 1 - (row * step) / height
        hidden = {"visible": False, "fixedrange": True}
        figure.update_layout({
            f"xaxis{n}": {**hidden, "anchor": f"y{n}", "range": [0, photo.width],
                          "domain": [left / inner, min((left + wide) / inner, 1)]},
            f"yaxis{n}": {**hidden, "anchor": f"x{n}", "range": [photo.height, 0],
                          "domain": [max(top - tall / height, 0), top]},
        })  # fmt: skip
        figure.add_trace(pointer(grid, area, look["name"], xaxis=f"x{n}", yaxis=f"y{n}"))
        figure.add_layout_image(
            source=source, x=0, y=0, sizex=photo.width, sizey=photo.height,
            xref=f"x{n}", yref=f"y{n}", sizing="stretch", layer="below",
        )  # fmt: skip
    return figure, round(height)


def _bar(photo: Any, grids: list[np.ndarray], look: dict[str, Any]) -> go.Scatter:
    signed, limit = span(np.stack(grids), signed=look["signed"])
    if look["shared"]:
        return bar(signed, limit, look["short"], ground(photo))
    return bar(signed, 1.0, f"{look['short']}, of the largest", ground(photo))


def _named(figure: Figure, labels: list[list[Any]], axes: Sequence[str]) -> None:
    """Names above the panels; with two axes above the first row and beside the first column."""
    style = {"showarrow": False, "font": {"size": 12, "family": theme.MONO}}
    over, alone = labels[-1], len(axes) == 1
    for i, one in enumerate(over):
        n = i + 1 if i else ""
        start, end = _layout(figure)[f"xaxis{n}"].domain
        text = called(axes[-1], one, len(over), (end - start) * (_WIDTH - _LEFT - _RIGHT))
        figure.add_annotation(
            text=in_figure(text), xref=f"x{n} domain", yref=f"y{n} domain", y=1, yanchor="bottom",
            x=0 if alone else 0.5, xanchor="left" if alone else "center", **style,
        )  # fmt: skip
    if len(axes) == 2:
        for i, one in enumerate(labels[0]):
            n = i * len(over) + 1 if i else ""
            figure.add_annotation(
                text=in_figure(called(axes[0], one, 99)), xref=f"x{n} domain", yref=f"y{n} domain",
                x=0, y=0.5, xanchor="right", yanchor="middle", xshift=-4, **style,
            )  # fmt: skip


def called(axis: str, one: Any, many: int, wide: float = math.inf) -> str:
    """The name of one panel: a word alone, a number with its axis where there is room.

    Args:
        wide: the pixels of a panel, which a word does not leave.
    """
    if isinstance(one, (Token, str)):
        text = plain(one)
        most = max(3, int(min(22 if many > 2 else 40, wide / _LETTER)))
        return text if len(text) <= most else text[: most - 1] + "…"
    short = f"{axis[0].upper()}{one}" if axis in ("layer", "head") else str(one)
    return f"{axis} {one}" if isinstance(one, int) and many <= 6 else short
