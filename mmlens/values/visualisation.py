"""Pictures made by optimisation, each with what it is for and what it reaches.

    made = visualise(model, [Neuron(5, 3, "vision"), Neuron(5, 9, "vision")], variants=2)
    made.picture(Neuron(5, 3, "vision"))        # PIL.Image, the stronger of the two
    made.to_frame()                             # neuron, variant, activation, start, dead
    made.save("units.png")                      # one sheet; the numbers are inside the file

A sheet is a PNG with a row per unit and a column per variant. Its text chunk holds labels, numbers,
curves and provenance, so that `Visualisation.load` gives back what was saved.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmlens.values.addresses import find
from mmlens.values.arguments import count
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import CheckpointError
from mmlens.values.packed_labels import pack_labels, unpack_labels
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = "mmlens visualisation"


@dataclass(frozen=True, eq=False)
class Visualisation:
    """Pictures of a number of units, several variants of each.

    Attributes:
        pixels: UInt8[unit, variant, row, col, 3].
        labels: what each row of pictures is for: a Neuron, or the name of a class or word.
        activation: Float[unit, variant], what the encoder gives for the picture as it is.
        start: the same of the noise that each began as.
        curve: Float[unit, variant, step], on the moved views that were optimised.
        dead: Bool[unit], whether no step of any variant moved the activation at all.
        about: how they were made (options, seed, model).
    """

    pixels: np.ndarray
    labels: tuple[Any, ...]
    activation: np.ndarray
    start: np.ndarray
    curve: np.ndarray
    dead: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def variants(self) -> int:
        """How many pictures there are of each."""
        return self.pixels.shape[1]

    def picture(self, of: Any = 0, variant: int | None = None) -> Image.Image:
        """One picture.

        Args:
            of: a label, or its number.
            variant: which; None for the strongest.

        Raises:
            AddressError: no such label. ArgumentError: no such variant.
        """
        row = self.row(of)
        signed = self.activation[row] * (-1 if self.about.get("sign") == -1 else 1)
        best = int(np.argmax(signed)) if variant is None else variant
        best = count(best, "variant", least=0, most=self.variants - 1)
        return Image.fromarray(self.pixels[row, best])

    def row(self, of: Any) -> int:
        """The number of a label, as `picture` finds it."""
        found = find(self.labels, of, "of")
        return found[0] if isinstance(found, list) else found

    def to_frame(self) -> pd.DataFrame:
        """A row per picture: neuron, variant, activation, start, dead."""
        import pandas as pd

        rows = [
            (label, variant, self.activation[i, variant], self.start[i, variant], self.dead[i])
            for i, label in enumerate(self.labels)
            for variant in range(self.variants)
        ]
        return pd.DataFrame(rows, columns=["neuron", "variant", "activation", "start", "dead"])

    def sheet(self, gap: int = 2) -> Image.Image:
        """All pictures as one: a row per unit, a column per variant."""
        units, variants, rows, cols, _ = self.pixels.shape
        wide, high = variants * (cols + gap) - gap, units * (rows + gap) - gap
        sheet = np.full((high, wide, 3), 255, np.uint8)
        for i in range(units):
            for j in range(variants):
                y, x = i * (rows + gap), j * (cols + gap)
                sheet[y : y + rows, x : x + cols] = self.pixels[i, j]
        return Image.fromarray(sheet)

    def save(self, path: str | Path) -> Path:
        """Write the sheet as a PNG with everything else in its text."""
        numbers = {name: getattr(self, name).tolist() for name in _NUMBERS}
        told = {
            **numbers,
            "labels": pack_labels(self.labels),
            "size": list(self.pixels.shape),
            "about": dict(self.about),
        }
        info, buffer = PngInfo(), io.BytesIO()
        info.add_itxt(_CHUNK, json.dumps(told, default=str), zip=True)
        self.sheet().save(buffer, "png", pnginfo=info)
        return write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Visualisation:
        """What `save` wrote.

        Raises:
            CheckpointError: the file is missing, or not one that `save` wrote.
        """
        try:
            with Image.open(path_of(path, "path")) as file:
                file.load()
                told = json.loads(file.info[_CHUNK])
                sheet = np.asarray(file.convert("RGB"))
            units, variants, rows, cols, _ = told["size"]
            pixels = np.stack(
                [
                    [_cut(sheet, i, j, rows, cols, variants, units) for j in range(variants)]
                    for i in range(units)
                ]
            )
            numbers = {name: np.asarray(told[name], kind) for name, kind in _NUMBERS.items()}
            labels = unpack_labels(told["labels"])
            return cls(pixels, tuple(labels or ()), **numbers, about=told["about"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{str(path)!r} does not hold a saved Visualisation ({error})."
            ) from error

    def _repr_png_(self) -> bytes:
        """The sheet, for notebooks."""
        buffer = io.BytesIO()
        self.sheet().save(buffer, "png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        rows, cols = self.pixels.shape[2:4]
        dead = f", {int(self.dead.sum())} dead" if self.dead.any() else ""
        what = f"{len(self)} x {self.variants} pictures of {cols} x {rows}{dead}"
        return f"Visualisation({what})"


_NUMBERS: dict[str, Any] = {"activation": float, "start": float, "curve": float, "dead": bool}


def _cut(
    sheet: np.ndarray, i: int, j: int, rows: int, cols: int, variants: int, units: int
) -> np.ndarray:
    """One picture of a sheet."""
    down = (sheet.shape[0] - units * rows) // max(1, units - 1)
    across = (sheet.shape[1] - variants * cols) // max(1, variants - 1)
    y, x = i * (rows + down), j * (cols + across)
    return sheet[y : y + rows, x : x + cols]
