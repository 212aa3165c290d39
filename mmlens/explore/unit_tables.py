"""What other methods found about units, as tables that a microscope's site shows.

words       neuron, word, value                  the strongest rendered words (a word probe)
formats     neuron, index, low, high, photo, ... how alike its answers are across formats
drawn       a function of a Neuron               its feature visualisation, a picture
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

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
        words: neuron, word, value: of the word probe.
        formats: neuron, index and other numbers: of the cross-format index.
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
        drawn = b"drawn" if self.drawn is not None else b""
        return hashlib.sha256(b"\0".join([*parts, drawn])).hexdigest()

    @cached_property
    def words_of(self) -> dict[Neuron, list[tuple[str, float]]]:
        """The rendered words of each unit, the strongest first."""
        rows: dict[Neuron, list[tuple[str, float]]] = {}
        for row in _rows(self.words, ("neuron", "word", "value"), "words"):
            rows.setdefault(row["neuron"], []).append((str(row["word"]), float(row["value"])))
        return {unit: sorted(own, key=lambda one: -one[1])[:WORDS] for unit, own in rows.items()}

    @cached_property
    def formats_of(self) -> dict[Neuron, dict[str, float]]:
        """The numbers of the cross-format index of each unit."""
        return {
            row["neuron"]: {
                name: float(value)
                for name, value in row.items()
                if isinstance(value, (int, float)) and not isinstance(value, bool)
            }
            for row in _rows(self.formats, ("neuron", "index"), "formats")
        }

    def draw(self, neuron: Neuron, key: str) -> list[str]:
        """The files of a unit's feature visualisation, drawn unless they are there."""
        if self.drawn is None:
            return []
        name = f"drawn/{key}/{neuron.unit}.jpg"
        path = self.folder / name
        if not path.is_file():
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            picture = self.drawn(neuron).convert("RGB")
            with replacing(path) as new:
                picture.save(new, "jpeg", quality=88, subsampling=0, optimize=True)
        return [name]


def _rows(table: Any, columns: Sequence[str], name: str) -> list[dict[str, Any]]:
    """The rows of a table with these columns, neurons as Neuron."""
    if table is None:
        return []
    if lacking := [one for one in columns if one not in getattr(table, "columns", ())]:
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
