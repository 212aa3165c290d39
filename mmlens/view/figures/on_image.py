"""One value per patch, overlaid on the grey photo.

Signed values: blue raises, red lowers, opacity by magnitude, symmetric around 0. Values without
negatives: from transparent over violet to yellow. The overlay is painted (`view.style.paint`); the
figure's heat map is invisible and gives the numbers on hover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.values.arguments import flag, number
from mmlens.values.errors import AddressError
from mmlens.values.pictures import open_picture
from mmlens.values.scores import Scores
from mmlens.view.style import given
from mmlens.view.style.laid import Laid, lay
from mmlens.view.style.paint import Box, ground, legend, painted, paper, span

if TYPE_CHECKING:
    import plotly.graph_objects as go


def on_image(
    scores: Any,
    picture: Any = None,
    *,
    image: int = 0,
    crop: str | int | None = None,
    box: Box | None = None,
    top: float | int | None = None,
    smooth: bool = False,
    mask: Any = None,
    title: str | None = None,
) -> go.Figure:
    """The values of the picture's patches over the photo, as a plotly figure.

    Args:
        scores: one axis, `pos`; labels that are not patches are left out.
        picture: anything that `open_picture` reads, or None for no photo.
        image: which picture of the prompt.
        crop: of a picture that was read in several crops: "tiles" (all of them merged, over the
            whole photo), "thumbnail", or the number of one crop; by default the tiles.
        box: (x0, y0, x1, y1) in pixels that the grid covers; by default the whole picture
            (an encoder that crops reads less: `look(...).box`), or where the crops lie.
        top: the value of full opacity; by default the largest magnitude.
        smooth: interpolate linearly between patches.
        mask: Bool[height, width] of the picture, outlined, such as an object's.

    Raises:
        AddressError: no patches on `pos`, or other axes are left, or a mask of another size.
    """
    from mmlens.view.style import theme
    from mmlens.view.style.baselines import from_nothing, is_signed
    from mmlens.view.style.figure import Figure
    from mmlens.view.style.titles import axis_name, quantity, title_of

    scores, picture = given.scores_first(scores, picture)
    smooth = flag(smooth, "smooth")
    top = None if top is None else number(top, "top", least=0)
    laid = patch_cells(scores, image, crop)
    scores = from_nothing(scores)
    grid = laid.grid(scores.numpy())
    photo = open_picture(picture) if picture is not None else paper(*grid.shape)
    x0, y0, x1, y1 = given.box(laid.box(photo) if box is None else box, photo)
    signed, limit = span(grid, top, signed=is_signed(scores))
    told, about = title_of(scores)
    spots = pointer(grid, (x0, y0, x1, y1), quantity(scores))
    figure = Figure([spots, bar(signed, limit, axis_name(scores), ground(photo))])
    source = painted(photo, grid, signed, limit, (x0, y0, x1, y1), smooth=smooth, mask=mask)
    figure.add_layout_image(source=source, **_place(photo.size))
    notes = ["blue raises, red lowers"] * signed
    notes += [f"drawn: the {laid.name}"] * (laid.name != "picture")
    notes += ["smoothed between patches"] * smooth + ["outlined: the mask"] * (mask is not None)
    rows, cols = grid.shape
    return theme.finish(
        figure,
        given.title(title, told),
        " · ".join([about, *notes]),
        width=560,
        meta={"least": 300},
        height=round(min(max(440 * photo.height / photo.width, 240), 700)) + 130,
        xaxis={
            **_AXIS,
            **_ticks(cols, x0, (x1 - x0) / cols),
            "range": [0, photo.width],
            "title": "patch column",
        },
        yaxis={
            **_AXIS,
            **_ticks(rows, y0, (y1 - y0) / rows),
            "range": [photo.height, 0],
            "title": "patch row",
            "scaleanchor": "x",
        },
    )


_AXIS: dict[str, Any] = {"showgrid": False, "zeroline": False, "constrain": "domain"}


def pointer(grid: np.ndarray, area: Box, name: str, **options: Any) -> go.Heatmap:
    """An invisible heat map that shows the number on hover."""
    import plotly.graph_objects as go

    from mmlens.view.style.theme import in_figure

    (rows, cols), (x0, y0, x1, y1) = grid.shape, area
    return go.Heatmap(
        z=grid,
        x=x0 + (x1 - x0) / cols * (np.arange(cols) + 0.5),
        y=y0 + (y1 - y0) / rows * (np.arange(rows) + 0.5),
        customdata=np.moveaxis(np.indices(grid.shape), 0, -1),
        hovertemplate="row %{customdata[0]}, column %{customdata[1]}<br>"
        f"{in_figure(name)} <b>%{{z:.4g}}</b><extra></extra>",
        opacity=0,
        showscale=False,
        **options,
    )


def bar(signed: bool, limit: float, name: str, under: int) -> go.Scatter:
    """An empty trace with a colour bar: the overlay's colours over the grey `under` them."""
    import plotly.graph_objects as go

    from mmlens.view.style import theme

    return go.Scatter(
        x=[None],
        y=[None],
        marker={
            "color": [0],
            "colorscale": legend(signed, under),
            "cmin": -limit if signed else 0,
            "cmax": limit,
            "showscale": True,
            "colorbar": theme.colourbar(name),
        },
        hoverinfo="skip",
        showlegend=False,
    )


def patch_grid(scores: Scores, image: int = 0) -> np.ndarray:
    """Float[row, col]: the values of one picture's patches; NaN where there is none."""
    return patch_cells(scores, image).grid(scores.numpy())


def patch_cells(scores: Scores, image: int = 0, crop: str | int | None = None) -> Laid:
    """Where the patches of one picture are drawn.

    Raises:
        AddressError: other axes than `pos`, no patch of this picture, or no such crop.
    """
    scores = given.scores(scores)
    if scores.axes != ("pos",):
        extra = [axis for axis in scores.axes if axis != "pos"]
        names = ", ".join(repr(axis) for axis in extra)
        raise AddressError(
            f"A picture shows one value per patch, and {scores!r} has other axes: narrow it, as in"
            f" scores.sel({extra[0]}=...), reduce it: scores.sum({names}), or show one picture for"
            f" each: view.panels(scores, picture)."
            if "pos" in scores.axes
            else f"A picture needs an axis 'pos' with patches, and {scores!r} has none."
        )
    return lay(scores.of("pos"), scores.about, repr(scores), image=image, crop=crop)


def _place(size: tuple[int, int]) -> dict[str, Any]:
    """The axes of a photo of this size: one unit per pixel."""
    return {
        "x": 0,
        "y": 0,
        "sizex": size[0],
        "sizey": size[1],
        "xref": "x",
        "yref": "y",
        "sizing": "stretch",
        "layer": "below",
    }


def _ticks(n: int, start: float, step: float) -> dict[str, Any]:
    every = -(-n // 12)
    shown = list(range(0, n, every))
    return {"tickvals": [start + step * (i + 0.5) for i in shown], "ticktext": shown}
