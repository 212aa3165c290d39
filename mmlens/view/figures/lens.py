"""Words in a grid: predictions at each layer and position, or at each patch.

    view.lens(mm.logit_lens(model, prompt))                 # layer by position
    view.lens(mm.logit_lens(model, prompt, layer=5))       # one layer: patch rows by columns
    view.lens(mm.nearest_tokens(model, prompt, pos=Patch))  # nearest words of projected patches
    view.lens(mm.head_lens(model, prompt, layer=5))        # head by position

The best word is the cell's text, its number the colour, the next best are shown on hover.
"""

from __future__ import annotations

from collections.abc import Hashable
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from mmlens.values.arguments import count
from mmlens.values.errors import AddressError
from mmlens.values.labels import Patch
from mmlens.view.style import given, theme
from mmlens.view.style.colourscale import ink_on, on, read
from mmlens.view.style.figure import Figure
from mmlens.view.style.laid import lay
from mmlens.view.style.numbers import keep
from mmlens.view.style.printed import label, visible
from mmlens.view.style.theme import in_figure

if TYPE_CHECKING:
    import pandas as pd

MOST = 20
_QUANTITIES = {
    "prob": "probability",
    "logprob": "log probability",
    "logit": "logit",
    "cosine": "cosine similarity",
}


def lens(
    table: pd.DataFrame, *, crop: str | int | None = None, title: str | None = None
) -> go.Figure:
    """Words as cells, coloured by their number, as a plotly figure.

    With a column `layer` (or `head`) of several: layer upwards, position to the right. Else patches
    by row and column. Of more than 20 positions only those of words are shown, and the subtitle
    counts the patches left out.

    Args:
        table: what `logit_lens` (without words) or `nearest_tokens` returns: pos, rank, token, the
            number, and layer, or head.
        crop: by patches, of a picture that was read in several crops: as in `view.on_image`.

    Raises:
        AddressError: other columns, or more positions than can be read.
    """
    table = given.table(table, (), "mm.logit_lens(model, prompt)", empty=True)
    quantity = next((name for name in _QUANTITIES if name in table.columns), None)
    if quantity is None or not {"pos", "rank", "token"} <= set(table.columns) or not len(table):
        raise AddressError(
            "A lens shows rows with the columns pos, rank, token and a number (prob, logprob, logit"
            f" or cosine); this table has {len(table)} rows and {list(table.columns)}."
        )
    if not all(isinstance(one, Real) for one in table[quantity]):
        raise AddressError(f"The column {quantity!r} of this table holds no numbers.")
    if not all(isinstance(one, Hashable) for one in table["pos"]):
        raise AddressError("The column 'pos' of this table holds lists: a label is no list.")
    given_table, axis = table, "head" if _has_heads(table) else "layer"
    table = table.rename(columns={axis: "layer"})
    for layer in table["layer"].unique() if "layer" in table.columns else ():
        count(layer, f"table['{axis}']", least=0)
    layered = "layer" in table.columns and len(set(table["layer"])) > 1
    cells, rows, columns, note = _by_layer(table) if layered else _by_patch(table, crop)
    z = np.full((len(rows), len(columns)), np.nan, np.float32)
    words = np.full(z.shape, "", dtype=object)
    told = np.full(z.shape, "", dtype=object)
    for (row, column), found in cells.items():
        first = found[0]
        z[row, column] = first[quantity]
        words[row, column] = in_figure(short(visible(first["token"])))
        told[row, column] = _told(found, quantity, axis)
    heat = _cells(z, told, quantity)
    figure = Figure([heat, _words(z, words, heat)])
    measure = _QUANTITIES[quantity]
    named = (
        "What the model would say at each " if quantity != "cosine" else "The nearest word of each "
    )
    subtitle = f"most probable word and its {measure}" if quantity != "cosine" else measure
    layer = f"{axis} {table['layer'].iloc[0]}" if "layer" in table.columns and not layered else ""
    theme.finish(
        figure,
        given.title(title, named + (f"{axis} and position" if layered else "patch")),
        " · ".join(part for part in (subtitle, layer, note) if part),
        height=max(170 + 26 * len(rows), 250),  # a bar of colours has room for its numbers
        width=max(420, min(150 + 62 * len(columns), 1100)) if not layered else None,
        xaxis={
            **_axis("position" if layered else "patch column", columns, layered),
            "range": [-0.5, len(columns) - 0.5],
        },
        yaxis={
            **_axis(axis if layered else "patch row", rows, False),
            "range": [-0.5, len(rows) - 0.5] if layered else [len(rows) - 0.5, -0.5],
        },
        meta={"least": 150 + 60 * len(columns)},
    )
    return keep(figure, given_table)


def _has_heads(table: pd.DataFrame) -> bool:
    return "head" in table.columns and "layer" not in table.columns


Cells = dict[tuple[int, int], list[dict[str, Any]]]


def _by_layer(table: pd.DataFrame) -> tuple[Cells, list[Any], list[Any], str]:
    """Cells of (layer, position), the labels of both, and what was left out."""
    positions = list(dict.fromkeys(table["pos"]))
    note = ""
    if len(positions) > MOST:
        left = [one for one in positions if not isinstance(one, Patch)]
        note = f"{len(positions) - len(left)} patches left out: give layer= one layer to see them"
        positions = left
    if not 0 < len(positions) <= MOST:
        raise AddressError(
            f"A lens shows up to {MOST} positions by layer, and there are"
            f" {table['pos'].nunique()}: narrow them, as in logit_lens(model, prompt, pos=...), or"
            " take one layer."
        )
    layers = sorted(set(table["layer"]))
    return _filled(table, layers, positions, "layer"), layers, positions, note


def _by_patch(
    table: pd.DataFrame, crop: str | int | None
) -> tuple[Cells, list[Any], list[Any], str]:
    """Cells of (row, column) of the first picture."""
    patches = [one for one in dict.fromkeys(table["pos"]) if isinstance(one, Patch)]
    words = len(set(table["pos"])) - len(patches)
    if not patches:
        positions = list(dict.fromkeys(table["pos"]))
        return _filled(table, [""], positions, None), [""], positions, ""
    about = table.attrs.get("about", {})
    laid = lay(patches, about, "This table", image=patches[0].image, crop=crop)
    rows, columns = (list(range(n)) for n in laid.shape)
    place = {patches[index]: cell for index, cell in laid.cells.items()}
    cells: Cells = {}
    for record in table.sort_values("rank", kind="stable").to_dict("records"):
        if record["pos"] in place:
            cells.setdefault(place[record["pos"]], []).append(record)
    note = f"{words} positions of words left out" if words else ""
    note = " · ".join([note] * bool(note) + [f"drawn: the {laid.name}"] * (laid.name != "picture"))
    return cells, rows, columns, note


def _filled(table: pd.DataFrame, rows: list[Any], positions: list[Any], axis: str | None) -> Cells:
    where = {one: i for i, one in enumerate(positions)}
    layers = {one: i for i, one in enumerate(rows)}
    cells: Cells = {}
    for record in table.sort_values("rank", kind="stable").to_dict("records"):
        if record["pos"] in where:
            row = layers[record[axis]] if axis else 0
            cells.setdefault((row, where[record["pos"]]), []).append(record)
    return cells


def _told(found: list[dict[str, Any]], quantity: str, axis: str) -> str:
    """Lines of words and numbers for the hover text."""
    place = in_figure(label(found[0]["pos"]))
    lines = [f"{in_figure(visible(one['token']))} {one[quantity]:.3g}" for one in found[:8]]
    layer = f"{axis} {found[0]['layer']}, " if "layer" in found[0] else ""
    return f"{layer}{place}<br><b>{lines[0]}</b>" + "".join(f"<br>{line}" for line in lines[1:])


def _cells(z: np.ndarray, told: np.ndarray, quantity: str) -> go.Heatmap:
    finite = z[np.isfinite(z)]
    low = 0.0 if quantity == "prob" else float(finite.min(initial=0.0))
    high = 1.0 if quantity == "prob" else float(finite.max(initial=0.0))
    return go.Heatmap(
        z=z,
        customdata=told,
        hovertemplate="%{customdata}<extra></extra>",
        colorscale=theme.scale("sequential"),
        zmin=low,
        zmax=high if high > low else low + 1,
        xgap=1,
        ygap=1,
        colorbar=theme.colourbar(_QUANTITIES[quantity]),
    )


def _words(z: np.ndarray, words: np.ndarray, heat: Any) -> go.Scatter:
    """The words as a separate trace, since a heat map cannot colour each text."""
    stops = read(heat.colorscale)
    part = np.clip((z - heat.zmin) / (heat.zmax - heat.zmin), 0, 1)
    at = [(i, j) for i, j in np.argwhere(np.isfinite(z)) if words[i, j]]
    return go.Scatter(
        x=[int(j) for _, j in at],
        y=[int(i) for i, _ in at],
        text=[words[i, j] for i, j in at],
        mode="text",
        textfont={
            "family": theme.MONO,
            "size": 11.5,
            "color": [ink_on(on(stops, float(part[i, j]))) for i, j in at],
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _axis(name: str, labels: list[Any], words: bool) -> dict[str, Any]:
    texts = [in_figure(short(label(one), 12)) for one in labels]
    return {
        "title": in_figure(name),
        "tickvals": list(range(len(labels))),
        "ticktext": texts,
        "tickfont": {"family": theme.MONO, "size": 11.5},
        "tickangle": -45 if words and any(len(text) > 6 for text in texts) else 0,
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }


def short(text: str, most: int = 8) -> str:
    """At most `most` letters, ending in an ellipsis where it is cut."""
    return text if len(text) <= most else text[: most - 1] + "…"
