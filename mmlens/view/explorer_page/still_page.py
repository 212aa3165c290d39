"""The explorer as a still picture and a table: the explained word, its neurons, what they say."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmlens.view.figures.on_image import patch_cells
from mmlens.view.still.marks import Still
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style.paint import painted, span
from mmlens.view.style.printed import plain, visible

_NEURONS, _WORDS = 10, 8


def still_page(looks: Any, title: str) -> Still:
    """Of each picture: the word's map, and its first neurons with where they are active."""
    rows = [row for seen in looks for row in _rows(seen)]
    return sheet(title, "the explained word, and the neurons that do most for it", rows)


def table_of(looks: Any) -> pd.DataFrame:
    """Every neuron of every word of every picture."""
    tables = [one.table.drop(columns=["probs"], errors="ignore") for one in looks]
    if len(tables) == 1:
        return tables[0]
    named = [part.assign(picture=i) for i, part in enumerate(tables)]
    return pd.concat(named, ignore_index=True)


def _rows(seen: Any) -> list[SheetRow]:
    said = [(visible(word), "", 1.0) for word in (seen.prompt + seen.caption).split()]
    here = seen.maps.sel(token=seen.token)
    first = SheetRow(plain(seen.token), said, [(_map(seen, here), "attribution")], 200)
    made = [first]
    for row in seen.neurons.head(_NEURONS).to_dict("records"):
        active = seen.activations.sel(neuron=row["neuron"])
        words = [(visible(word), "", 1.0) for word in list(row["words"])[:_WORDS]]
        image = _map(seen, active)
        made.append(SheetRow(str(row["neuron"]), words, [(image, f"score {row['score']:+.3g}")]))
    return made


def _map(seen: Any, scores: Any) -> Any:
    laid = patch_cells(scores)
    grid = laid.grid(scores.numpy())
    signed, limit = span(grid)
    whole = (0, 0, *seen.picture.size)
    box = laid.box(seen.picture) or seen.box or whole
    return painted(seen.picture, grid, signed, limit, box, side=400)
