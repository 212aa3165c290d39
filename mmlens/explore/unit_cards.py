"""What the site of a microscope shows of every unit of a layer, from a finished sweep."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmlens.datasets.sample import Samples
from mmlens.explore.unit_activity import Layer
from mmlens.explore.unit_labels import LabelsOfUnits, LabelTable, label_table, labels_of_units
from mmlens.explore.unit_neighbours import Nearest, directions, nearest
from mmlens.explore.unit_probes import Drawer
from mmlens.explore.unit_tables import Tables
from mmlens.explore.unit_weights import Wiring, feeds, wirings
from mmlens.methods.decode import decode
from mmlens.sweep.running import read_running
from mmlens.sweep.sweep_folder import Sweep
from mmlens.tally import Moments, Top, TopMaps
from mmlens.tally.top import NONE
from mmlens.towers.dictionaries.hosting import dictionaries_of
from mmlens.values.errors import writing
from mmlens.values.labels import DICTIONARY, LM, Neuron, host_of
from mmlens.values.whole_files import write_whole
from mmlens.view.microscope_page.shown_unit import LabelCard, Pointer, TopPicture, UnitCard

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

NEAR, FEEDS, SAYS = 6, 6, 10
"""How many nearest units, connections and decoded words of each unit."""


@dataclass(frozen=True, eq=False)
class LayerCards:
    """The cards of layers, each made when it is asked for."""

    model: HookedModel
    tower: str
    layers: Sequence[Layer]
    done: Sweep
    samples: Samples
    work: Path
    tables: Tables

    @cached_property
    def tallies(self) -> dict[str, Any]:
        """The running statistics of the sweep."""
        return read_running(self.done.folder)

    def top(self, number: int) -> Top:
        """The top pictures of a layer's units."""
        return self.tallies[f"L{number}"][0]

    @cached_property
    def labels(self) -> LabelTable:
        """The labels of the pictures whose peaks were kept."""
        return label_table(list(self.done.table("labels")["label"]))

    @cached_property
    def wiring(self) -> dict[int, Wiring]:
        """What units write and read, of these layers and those beside them."""
        shown = {layer.number for layer in self.layers}
        if host_of(self.tower) != self.tower:
            held = dictionaries_of(self.model.towers[host_of(self.tower)])
            rows = {n: held[n].dictionary.W_dec.float().cpu() for n in sorted(shown)}
            return {n: Wiring(one, None, True) for n, one in rows.items()}
        beside = {n + step for n in shown for step in (-1, 0, 1)}
        there = [n for n in sorted(beside) if 0 <= n < self.model.towers[self.tower].n_layers]
        return wirings(self.model, self.tower, there, self.samples[0].image)

    def pictures(self) -> list[int]:
        """The numbers of all pictures that are among the first of some unit."""
        numbers = [self.top(one.number).samples.values.unique() for one in self.layers]
        return [n for n in torch.cat(numbers).unique().tolist() if n < NONE]

    def grid(self, layer: Layer) -> tuple[int, int] | None:
        """Rows and columns of the maps that were kept."""
        top = self.top(layer.number)
        return top.shape if isinstance(top, TopMaps) else None

    def facts(self) -> dict[str, Any]:
        """Numbers for the sentences of the page."""
        n = len(self.labels.having)
        return {
            "tower": self.tower,
            "pictures": len(self.samples),
            "peaks": n,
            "with": self.labels.having.sum(0).tolist(),
            "strong": self._labels(self.layers[0]).n_strong,
            "measured": all(one.measured for one in self.wiring.values()),
        }

    def cards(self, layer: Layer) -> list[UnitCard]:
        """A card per unit."""
        units = range(layer.units)
        top, moments = self.tallies[f"L{layer.number}"]
        tops, spread = self._tops(top), _spread(moments)
        found, alike = self._labels(layer), self._alike(layer.number)
        writes, wired = self._writes(layer.number), feeds(layer.number, self.wiring, FEEDS)
        says, drawn = self._says(layer), self._drawn(layer, spread)
        out = []
        for unit in units:
            neuron = Neuron(layer.number, unit, self.tower)
            out.append(
                UnitCard(
                    unit,
                    spread[unit],
                    tops=_exciting(tops[unit], spread[unit]),
                    histogram=_histogram(found, unit),
                    labels=_label_cards(found, unit),
                    alike=self._pointers(alike, unit),
                    writes=self._pointers(writes, unit),
                    fed_by=self._connected(wired.by, layer.number - 1, unit),
                    feeds=self._connected(wired.to, layer.number + 1, unit),
                    says=says[unit] if says else (),
                    words=self.tables.words_of.get(neuron, ()),
                    formats=self.tables.formats_of.get(neuron, {}),
                    drawn=drawn.get(neuron, ()),
                )
            )
        return out

    def _drawn(self, layer: Layer, spread: Any) -> dict[Neuron, list[str]]:
        """Feature visualisations: of all units, or of those of the sharpest peaks."""
        units: Sequence[int] = range(layer.units)
        if isinstance(self.tables.drawn, Drawer):
            sharp = [(high - mean) / wide if wide > 0 else 0.0 for _, mean, wide, high in spread]
            units = sorted(units, key=lambda unit: -sharp[unit])[: self.tables.drawn.each]
        neurons = [Neuron(layer.number, unit, self.tower) for unit in sorted(units)]
        return self.tables.draw(neurons, layer.name(self.tower))

    def _tops(self, top: Top) -> list[list[TopPicture]]:
        numbers, values = top.samples.values.tolist(), top.values.values.tolist()
        maps = top.maps.numpy() if isinstance(top, TopMaps) else None
        return [
            [
                TopPicture(
                    number, self.samples.ids[number], value,
                    None if maps is None else maps[unit, rank],
                )
                for rank, (number, value) in enumerate(zip(row, its, strict=True))
                if number < NONE
            ]
            for unit, (row, its) in enumerate(zip(numbers, values, strict=True))
        ]  # fmt: skip

    def _labels(self, layer: Layer) -> LabelsOfUnits:
        return labels_of_units(self._peaks(layer.number), self.labels)

    def _peaks(self, number: int) -> Tensor:
        """Float[unit, picture]: put together once, then read from one file."""
        path = self.work / "peaks" / f"{number}-{self._named}.npy"
        if not path.is_file():
            rows = torch.stack([one.values for _, one in self.done.each(f"P{number}")], 1)
            buffer = io.BytesIO()
            np.save(buffer, rows.numpy())
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, buffer.getvalue())
        return torch.from_numpy(np.load(path)).float()

    @cached_property
    def _named(self) -> str:
        return hashlib.sha256(repr(self.done.manifest).encode()).hexdigest()[:12]

    def _alike(self, number: int) -> Nearest:
        rows = {n: partial(self._centred, n) for n in (one.number for one in self.layers)}
        return nearest(number, rows, NEAR)

    def _centred(self, number: int) -> Tensor:
        return directions(self._peaks(number), centred=True)

    def _writes(self, number: int) -> Nearest | None:
        """Nearest by output weights, among the layers that write to a stream of the same width."""
        if number not in self.wiring:
            return None
        wide = self.wiring[number].writes.shape[1]
        rows = {
            one.number: partial(directions, self.wiring[one.number].writes, centred=False)
            for one in self.layers
            if one.number in self.wiring and self.wiring[one.number].writes.shape[1] == wide
        }
        return nearest(number, rows, NEAR)

    def _says(self, layer: Layer) -> list[list[tuple[str, float]]]:
        """What units of a language model decode to."""
        if self.tower not in (LM, DICTIONARY) or not self.model.can("unembed"):
            return []
        model: Any = self.model
        units = [Neuron(layer.number, unit, self.tower) for unit in range(layer.units)]
        table = decode(model, units, SAYS)
        rows = zip(table["words"], table["probs"], strict=True)
        return [list(zip(words, probs, strict=True)) for words, probs in rows]

    def _pointers(self, found: Nearest | None, unit: int) -> list[Pointer]:
        rows = () if found is None else found.of(unit)
        return [(layer, other, value, self._first(layer, other)) for layer, other, value in rows]

    def _connected(self, found: Any, layer: int, unit: int) -> list[Pointer]:
        if found is None:
            return []
        rows = zip(found[0][unit].tolist(), found[1][unit].tolist(), strict=True)
        return [(layer, other, value, self._first(layer, other)) for other, value in rows if value]

    def _first(self, layer: int, unit: int) -> int:
        """The number of a unit's top picture; -1 where its layer is not shown."""
        if f"L{layer}" not in self.tallies:
            return -1
        number = int(self._firsts[layer][unit])
        return number if number < NONE else -1

    @cached_property
    def _firsts(self) -> dict[int, Tensor]:
        return {one.number: self.top(one.number).samples.values[:, 0] for one in self.layers}


def _spread(moments: Moments) -> list[tuple[float, float, float, float]]:
    parts = (moments.min, moments.mean, moments.variance, moments.max)
    low, mean, variance, high = (part.values.tolist() for part in parts)
    return [
        (a, b, max(c, 0.0) ** 0.5 if c == c else 0.0, d)
        for a, b, c, d in zip(low, mean, variance, high, strict=True)
    ]


def _exciting(
    tops: Sequence[TopPicture], spread: tuple[float, float, float, float]
) -> list[TopPicture]:
    """Those where the unit is active; the highest of a unit that never is, if they differ."""
    active = [one for one in tops if one.value > 0]
    return active or (list(tops) if spread[0] < spread[3] else [])


def _histogram(found: LabelsOfUnits, unit: int) -> tuple[float, float, list[int]]:
    return float(found.low[unit]), float(found.high[unit]), found.counts[unit].tolist()


def _label_cards(found: LabelsOfUnits, unit: int) -> list[LabelCard]:
    rows: Iterable[Any] = zip(
        found.label[unit].tolist(), found.apart[unit].tolist(), found.strong[unit].tolist(),
        found.having[unit].tolist(), strict=True,
    )  # fmt: skip
    return [LabelCard(*row) for row in rows if row[0] >= 0]
