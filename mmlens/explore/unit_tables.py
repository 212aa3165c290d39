"""What other methods found about units, as tables that a microscope's site shows.

top_words      neuron, word, value              the rendered words that excite it (a word probe)
cross_format   neuron, z, z_low, "z photo" ...  whether it answers to a concept in every format
drawn          a function of a Neuron           its feature visualisation, a picture
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.explore.unit_probes import Drawer
from mmlens.values.arguments import function, instance, number
from mmlens.values.errors import AddressError, writing
from mmlens.values.labels import Neuron
from mmlens.values.whole_files import replacing

if TYPE_CHECKING:
    import pandas as pd

WORDS = 8
"""Rendered words of each unit."""


@dataclass(frozen=True, eq=False)
class Tables:
    """What other methods found about units.

    Attributes:
        words: of the word probe.
        formats: of the cross-format index.
        drawn: the feature visualisation of a Neuron.
        folder: of the site.
    """

    words: pd.DataFrame | None
    formats: pd.DataFrame | None
    drawn: Callable[[Neuron], Image.Image] | None
    folder: Path

    def digest(self) -> str:
        """A hash of the tables, and of whether there is a function that draws."""
        parts = [
            b"" if table is None else _csv(table).encode() for table in (self.words, self.formats)
        ]
        told = str(self.drawn) if isinstance(self.drawn, Drawer) else "drawn"
        drawn = told.encode() if self.drawn is not None else b""
        return hashlib.sha256(b"\0".join([*parts, drawn])).hexdigest()

    def check(self) -> None:
        """Refuse what is no such table or function.

        Raises:
            AddressError, ArgumentError: a table without these columns, or no function.
        """
        if self.drawn is not None:
            function(self.drawn, "drawn", "a function of a Neuron", takes=1)
        assert self.words_of is not None and self.formats_of is not None  # they are read here

    @cached_property
    def words_of(self) -> dict[Neuron, list[tuple[str, float]]]:
        """The rendered words of each unit, the strongest first."""
        rows: dict[Neuron, list[tuple[str, float]]] = {}
        for row in _rows(self.words, ("neuron", "word", "value"), "top_words"):
            value = number(row["value"], "value")
            rows.setdefault(row["neuron"], []).append((str(row["word"]), value))
        return {unit: sorted(own, key=lambda one: -one[1])[:WORDS] for unit, own in rows.items()}

    @cached_property
    def formats_of(self) -> dict[Neuron, dict[str, float | str]]:
        """The cross-format index of each unit: index, low, high, concept, and each format's."""
        out: dict[Neuron, dict[str, float | str]] = {}
        for row in _rows(self.formats, ("neuron", "z"), "cross_format"):
            known = {"index": "z", "low": "z_low", "high": "z_high"}
            own: dict[str, float | str] = {
                name: number(row[column], column) for name, column in known.items() if column in row
            }
            own |= {key[2:]: float(row[key]) for key in row if str(key).startswith("z ")}
            own |= {"concept": str(row["concept"])} if "concept" in row else {}
            before = out.get(row["neuron"])
            if before is None or own["index"] > before["index"]:  # type: ignore[operator]
                out[row["neuron"]] = own
        return out

    def draw(self, neurons: Sequence[Neuron], key: str) -> dict[Neuron, list[str]]:
        """The files of the feature visualisations of these units, drawn unless they are there."""
        if self.drawn is None:
            return {}
        names = {one: f"drawn/{key}/{one.unit}.jpg" for one in neurons}
        missing = [one for one, name in names.items() if not (self.folder / name).is_file()]
        if isinstance(self.drawn, Drawer):
            self.drawn.some(missing)
        for one in missing:
            path = self.folder / names[one]
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            picture = self.drawn(one).convert("RGB")
            with replacing(path) as new:
                picture.save(new, "jpeg", quality=88, subsampling=0, optimize=True)
        return {one: [name] for one, name in names.items()}


def _rows(table: Any, columns: Sequence[str], name: str) -> list[dict[str, Any]]:
    """The rows of a table with these columns, neurons as Neuron."""
    if table is None:
        return []
    import pandas as pd

    instance(table, name, pd.DataFrame, f"a table with the columns {', '.join(columns)}")
    if lacking := [one for one in columns if one not in table.columns]:
        raise AddressError(
            f"microscope({name}=...) needs a table with the columns {', '.join(columns)}, and this"
            f" has no {lacking[0]!r}."
        )
    rows = table.to_dict("records")
    for row in rows:
        one = row["neuron"]
        row["neuron"] = one if isinstance(one, Neuron) else Neuron.parse(str(one))
    return rows


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False))
