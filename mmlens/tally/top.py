"""The samples with the highest values of every cell: the pictures that excite a neuron most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.tally.cells import Tally
from mmlens.values.addresses import read_address
from mmlens.values.arguments import count, several, shown
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

LEVELS = 16
"""The steps of a map in `TopMaps`."""
NONE = 1 << 62
"""The sample of a rank that nothing has taken yet."""


class Top(Tally):
    """The `k` samples with the highest values of every cell, each sample once, by its highest."""

    def __init__(self, keep: Sequence[str] = ("layer", "unit"), k: int = 9) -> None:
        k = count(k, "k", error=AddressError)
        super().__init__(keep, k=k)
        self.k = k

    def _new(self, cells: int) -> dict[str, Tensor]:
        none = torch.full((cells, self.k), NONE)
        return {"value": torch.full((cells, self.k), -math.inf), "sample": none, "place": none - 0}

    def _take(self, kept: dict[str, Tensor], rows: Tensor, sample: int) -> None:
        value = rows.float().amax(1).cpu()
        least, last = kept["value"][:, -1], kept["sample"][:, -1]
        where = ((value > least) | ((value == least) & (sample < last))).nonzero()[:, 0]
        if len(where):
            mine = rows[where.to(rows.device)].float()
            new = {"value": value[where], "place": mine.argmax(1).cpu()}
            new |= {"sample": torch.full_like(new["place"], sample), **self._more(mine)}
            both = {key: torch.cat([kept[key][where], new[key][:, None]], 1) for key in kept}
            for key, best in _best(both, self.k).items():
                kept[key][where] = best

    def _more(self, rows: Tensor) -> dict[str, Tensor]:
        """What else is kept of a sample, from the observations of the cells that take it in."""
        return {}

    def _join(self, kept: dict[str, Tensor], other: Any) -> None:
        both = {key: torch.cat([kept[key], other._kept[key]], 1) for key in kept}
        kept |= _best(both, self.k)

    @property
    def values(self) -> Scores:
        """The highest values, Scores(kept axes, rank), the highest first."""
        return self._scores(self._kept.get("value", torch.zeros(0)), "rank")

    @property
    def samples(self) -> Scores:
        """Their samples, Scores(kept axes, rank); `NONE` where there are fewer than `k`."""
        return self._scores(self._kept.get("sample", torch.zeros(0)), "rank")

    def table(
        self, *address: Any, ids: Sequence[str] | None = None, **by_axis: Any
    ) -> pd.DataFrame:
        """A row per cell and rank: the cell (`neuron`, or its axes), rank, sample, place, value.

        Args:
            address: which cells, as in `Scores.sel`; all when nothing is said.
            ids: the names of the samples, by their place in the data; else the places are given.
        """
        wanted = {
            axis: want if isinstance(want, (list, tuple, set, range, slice)) else [want]
            for axis, want in read_address(address, by_axis).items()
        }
        kept = {
            key: self._scores(self._kept[key], "rank").sel(**wanted)
            for key in ("value", "sample", "place")
            if self._kept
        }
        table = (kept["value"] if kept else self.values).to_frame(name="value")
        sample, place = (kept[key].values.flatten().tolist() for key in ("sample", "place"))
        table.insert(len(table.columns) - 1, "sample", _named(sample, ids))
        table.insert(len(table.columns) - 1, "place", _named(place, self.places))
        if {"layer", "unit"} <= set(self.keep):
            pairs = zip(table.pop("layer"), table.pop("unit"), strict=True)
            table.insert(0, "neuron", [Neuron(layer, unit) for layer, unit in pairs])
        taken: Any = table[table["value"] > -math.inf]
        return taken.reset_index(drop=True)


class TopMaps(Top):
    """`Top`, and where on each of these pictures the value was high.

    A map is kept in `LEVELS` steps of its own highest value, 0 where the value is negative, at most
    `side` cells high and wide: the largest of the cells that share one.

    Args:
        grid: (rows, cols) of the observations, which are the cells of a picture in reading order.
        side: of the maps that are kept.
    """

    def __init__(
        self,
        keep: Sequence[str] = ("layer", "unit"),
        k: int = 9,
        grid: Sequence[int] = (1, 1),
        side: int = 16,
    ) -> None:
        super().__init__(keep, k)
        sides = [count(one, "grid", error=AddressError) for one in several(grid, "grid")]
        if len(sides) != 2:
            raise AddressError(f"grid={shown(grid)}: write (rows, cols).")
        side = count(side, "side", error=AddressError)
        self.settings |= {"grid": sides, "side": side}
        self.grid = (sides[0], sides[1])
        self.shape = (min(self.grid[0], side), min(self.grid[1], side))

    def _new(self, cells: int) -> dict[str, Tensor]:
        n = self.shape[0] * self.shape[1]
        return {**super()._new(cells), "map": torch.zeros(cells, self.k, n, dtype=torch.uint8)}

    def _more(self, rows: Tensor) -> dict[str, Tensor]:
        values = rows.clamp(min=0)
        if self.shape != self.grid:
            maps = values.reshape(-1, 1, *self.grid)
            values = torch.nn.functional.adaptive_max_pool2d(maps, self.shape).flatten(1)
        top = values.amax(1, keepdim=True)
        steps = (values * ((LEVELS - 1) / top.clamp(min=1e-30))).round()
        return {"map": steps.to(torch.uint8).cpu()}

    @property
    def maps(self) -> Tensor:
        """UInt8[cell, rank, row, col]: 0 to `LEVELS` - 1, the highest value of that picture."""
        kept = self._kept["map"]
        return kept.reshape(*kept.shape[:2], *self.shape)


def _best(both: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """The first `k` of each row by value, falling, then by sample, rising."""
    order = both["sample"].argsort(dim=1, stable=True)
    by_sample = both["value"].gather(1, order)
    order = order.gather(1, by_sample.argsort(dim=1, descending=True, stable=True))[:, :k]
    return {key: _ordered(value, order) for key, value in both.items()}


def _ordered(values: Tensor, order: Tensor) -> Tensor:
    """Each row in its own order; a rank may hold more than one number."""
    first = torch.arange(len(values), device=order.device)[:, None] * values.shape[1]
    rows = values.flatten(0, 1).index_select(
        0, (first + order).flatten()
    )  # far quicker than gather
    return rows.unflatten(0, order.shape)


def _named(places: Sequence[int], names: Sequence[Any] | None) -> list[Any]:
    return [names[at] if names is not None and at < NONE else at for at in places]
