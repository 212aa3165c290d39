"""Where in the picture: one value per patch, laid over the grey photo.

Signed values: blue raises, red lowers, opacity by magnitude, symmetric around 0. Values without
negatives: from transparent over violet to yellow. The overlay is painted here, patch by patch, so
that nothing is interpolated; the figure's heat map is invisible and gives the numbers under the
pointer. NaN is hatched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from mmlens.errors import AddressError
from mmlens.pictures import open_picture
from mmlens.prompt import Patch
from mmlens.scores import Scores

if TYPE_CHECKING:
    import plotly.graph_objects as go

RAISES, LOWERS = (31, 119, 255), (255, 82, 46)
HEAT = ((87, 16, 110), (137, 34, 106), (188, 55, 84), (227, 89, 51), (249, 142, 9), (249, 201, 50))
OPACITY = 0.85
_SIDE = 640

Box = tuple[float | int, float | int, float | int, float | int]
"""(x0, y0, x1, y1) in pixels of a picture."""


def on_image(
    picture: Any,
    scores: Scores,
    *,
    image: int = 0,
    box: Box | None = None,
    top: float | int | None = None,
    title: str | None = None,
) -> go.Figure:
    """The values of the picture's patches over the photo, as a plotly figure.

    Args:
        picture: anything that `open_picture` reads, or None for no photo.
        scores: one axis, `pos`; labels that are no patches are left out.
        image: which picture of the prompt.
        box: (x0, y0, x1, y1) in pixels that the grid covers; by default the whole picture
            (an encoder that crops sees less: `model.vision.box`).
        top: the value of full opacity; by default the largest magnitude.

    Raises:
        AddressError: no patches on `pos`, or other axes are left.
    """
    import plotly.graph_objects as go

    from mmlens.view import theme
    from mmlens.view.titles import quantity, title_of

    grid = patch_grid(scores, image)
    rows, cols = grid.shape
    photo = open_picture(picture) if picture is not None else _paper(rows, cols)
    x0, y0, x1, y1 = map(float, box or (0, 0, photo.width, photo.height))
    step_x, step_y = (x1 - x0) / cols, (y1 - y0) / rows
    signed, limit = span(grid, top)
    told, about = title_of(scores)
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            x=x0 + step_x * (np.arange(cols) + 0.5),
            y=y0 + step_y * (np.arange(rows) + 0.5),
            customdata=np.moveaxis(np.indices(grid.shape), 0, -1),
            hovertemplate="row %{customdata[0]}, column %{customdata[1]}: %{z:.4g}<extra></extra>",
            opacity=0,
            showscale=False,
        )
    )
    scale = _legend(signed)
    figure.add_trace(
        go.Scatter(  # an empty trace, for a colour bar that is opaque
            x=[None],
            y=[None],
            marker={
                "color": [0],
                "colorscale": scale,
                "cmin": -limit if signed else 0,
                "cmax": limit,
                "showscale": True,
                "colorbar": theme.colourbar(
                    quantity(scores) + (": − lowers, + raises" if signed else "")
                ),
            },
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.add_layout_image(
        source=painted(photo, grid, signed, limit, (x0, y0, x1, y1)),
        x=0,
        y=0,
        sizex=photo.width,
        sizey=photo.height,
        xref="x",
        yref="y",
        sizing="stretch",
        layer="below",
    )
    axis: dict[str, Any] = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    return theme.finish(
        figure,
        title or told,
        about,
        width=560,
        height=round(min(max(440 * photo.height / photo.width, 240), 700)) + 130,
        xaxis={
            **axis,
            **_ticks(cols, x0, step_x),
            "range": [0, photo.width],
            "title": "patch column",
        },
        yaxis={
            **axis,
            **_ticks(rows, y0, step_y),
            "range": [photo.height, 0],
            "title": "patch row",
            "scaleanchor": "x",
        },
    )


def patch_grid(scores: Scores, image: int = 0) -> np.ndarray:
    """Float[row, col]: the values of one picture's patches; NaN where there is none.

    Raises:
        AddressError: other axes than `pos`, or no patch of this picture.
    """
    if scores.axes != ("pos",):
        extra = [axis for axis in scores.axes if axis != "pos"]
        names = ", ".join(repr(axis) for axis in extra)
        raise AddressError(
            f"A picture shows one value per patch, and {scores!r} has other axes: narrow it, as in"
            f" scores.sel({extra[0]}=...), or reduce it: scores.sum({names})."
            if "pos" in scores.axes
            else f"A picture needs an axis 'pos' with patches, and {scores!r} has none."
        )
    labels, values = scores.of("pos"), scores.numpy()
    here = [
        (label, value)
        for label, value in zip(labels, values, strict=True)
        if isinstance(label, Patch) and label.image == image
    ]
    if not here:
        raise AddressError(f"There is no patch of picture {image} in {scores!r}.")
    shape = (max(p.row for p, _ in here) + 1, max(p.col for p, _ in here) + 1)
    grid = np.full(shape, np.nan)
    for patch, value in here:
        grid[patch.row, patch.col] = value
    return grid


def span(grid: np.ndarray, top: float | int | None = None) -> tuple[bool, float]:
    """(whether the values have a sign, the magnitude of full colour)."""
    finite = grid[np.isfinite(grid)]
    signed = bool((finite < 0).any())
    return signed, float(top or 0) or float(np.abs(finite).max(initial=0)) or 1.0


def painted(
    photo: Image.Image,
    grid: np.ndarray,
    signed: bool,
    limit: float | int,
    box: Box,
) -> Image.Image:
    """The grey photo under the coloured patches."""
    zoom = _SIDE / max(photo.size)
    size = (max(1, round(photo.width * zoom)), max(1, round(photo.height * zoom)))
    smooth = Image.Resampling.LANCZOS if zoom < 2 else Image.Resampling.NEAREST
    canvas = ImageOps.grayscale(photo).resize(size, smooth).convert("RGBA")
    left, top, right, bottom = (round(edge * zoom) for edge in box)
    patches = Image.fromarray(colour(grid, signed, limit))
    layer = Image.new("RGBA", size)
    layer.paste(patches.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    _hatch(layer, grid, (left, top, right, bottom))
    return Image.alpha_composite(canvas, layer).convert("RGB")


def colour(grid: np.ndarray, signed: bool, limit: float | int) -> np.ndarray:
    """UInt8[row, col, 4]: hue and opacity of every value; NaN is transparent."""
    part = np.clip(np.nan_to_num(np.abs(grid) / limit), 0, 1)
    if signed:
        rgb = np.where((grid >= 0)[..., None], RAISES, LOWERS)
    else:
        stops = np.linspace(0, 1, len(HEAT))
        rgb = np.stack([np.interp(part, stops, [c[i] for c in HEAT]) for i in range(3)], -1)
    alpha = OPACITY * part
    return np.concatenate([rgb, 255 * alpha[..., None]], -1).astype(np.uint8)


def _hatch(layer: Image.Image, grid: np.ndarray, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    rows, cols = grid.shape
    y, x = np.mgrid[0 : bottom - top, 0 : right - left]
    missing = np.isnan(grid)[y * rows // (bottom - top), x * cols // (right - left)]
    ink = np.zeros((*missing.shape, 4), np.uint8)
    ink[missing & ((x + y) % 12 < 3)] = (30, 30, 30, 200)
    ink[missing & ((x + y) % 12 >= 9)] = (255, 255, 255, 200)
    layer.paste(Image.alpha_composite(layer.crop(box), Image.fromarray(ink)), (left, top))


def _legend(signed: bool) -> list[list[Any]]:
    """The overlay's colours on mid-grey, as an opaque scale."""
    values = np.linspace(-1 if signed else 0, 1, 33)
    rgba = colour(values[None], signed, 1.0)[0].astype(float)
    alpha = rgba[:, 3:] / 255
    mixed = (rgba[:, :3] * alpha + 150 * (1 - alpha)).round().astype(int)
    return [[i / 32, f"rgb({r},{g},{b})"] for i, (r, g, b) in enumerate(mixed)]


def _ticks(n: int, start: float, step: float) -> dict[str, Any]:
    every = -(-n // 12)
    shown = list(range(0, n, every))
    return {"tickvals": [start + step * (i + 0.5) for i in shown], "ticktext": shown}


def _paper(rows: int, cols: int) -> Image.Image:
    return Image.new("RGB", (16 * cols, 16 * rows), "white")
