"""What other methods say of every unit that a microscope shows, made for the site itself.

words      the rendered words that excite it       (`mmlens.methods.word_probe`)
formats    its cross-format index                  (`mmlens.methods.cross_format`)
drawn      its feature visualisation               (`mmlens.methods.visualise`), of some units

The tables are kept in the site's `work` folder under a hash of what they were made from, so that
an interrupted site does not make them again. The index of a unit is that of the concept for which
it is largest on one half of the pictures, measured on the other half.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmlens.explore.unit_activity import Layer
from mmlens.methods.cross_format import cross_format_index
from mmlens.methods.site_before_last import site_before_last
from mmlens.methods.unit_responses import unit_responses
from mmlens.methods.visualise import visualise
from mmlens.methods.word_probe import top_words, word_probe
from mmlens.values.arguments import instance, several
from mmlens.values.errors import ArgumentError, writing
from mmlens.values.labels import Neuron
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

Formats = Mapping[str, Mapping[str, Sequence[Any]]]
"""Format -> concept -> pictures."""
WORDS = 8
"""Words of each unit."""
BESIDE = 16
"""Feature visualisations that are made side by side."""
SIDE, STEPS = 64, 64
"""Pixels of a feature visualisation at most, and its steps."""


def word_table(
    model: HookedModel, layers: Sequence[Layer], words: Sequence[str], work: Path, of: str
) -> pd.DataFrame:
    """neuron, word, value: the strongest words of every unit of the layers.

    Args:
        work: the folder in which it is kept. of: what the site is made from, as a text.
    """

    def make() -> pd.DataFrame:
        import pandas as pd

        parts = []
        for layer in layers:
            scores = word_probe(model, words, layer=layer.number, site=layer.site)
            parts.append(top_words(scores, WORDS).drop(columns="rank"))
        return pd.concat(parts, ignore_index=True)

    return _kept(work / "words", repr((of, [layer.number for layer in layers], list(words))), make)


def format_table(
    model: HookedModel, layers: Sequence[Layer], formats: Formats, work: Path, of: str
) -> pd.DataFrame:
    """neuron, concept, z, z_low, z_high, `z FORMAT`: one row per unit of the layers.

    Args:
        formats: at least two, of the same concepts, with at least four pictures of each.

    Raises:
        ArgumentError: other formats.
    """
    given = checked(formats)
    told = repr((of, [layer.number for layer in layers], _digest(given)))

    def make() -> pd.DataFrame:
        import pandas as pd

        return pd.concat([_indices(model, one, given) for one in layers], ignore_index=True)

    return _kept(work / "formats", told, make)


def checked(formats: Any) -> dict[str, dict[str, list[Any]]]:
    """The formats as lists.

    Raises:
        ArgumentError: fewer than two formats or concepts, different concepts, too few pictures.
    """
    what = "a mapping from formats to concepts to pictures"
    given = {
        name: {concept: several(seen, "formats") for concept, seen in own.items()}
        for name, own in instance(formats, "formats", Mapping, what).items()
    }
    lists = {tuple(own) for own in given.values()}
    few = min((len(seen) for own in given.values() for seen in own.values()), default=0)
    if len(given) < 2 or len(lists) != 1 or len(next(iter(lists))) < 2 or few < 4:
        raise ArgumentError(
            f"formats of {list(given)}: give two at least, each with the same concepts (two at"
            " least) and four pictures of every concept."
        )
    return given


def _indices(model: HookedModel, layer: Layer, formats: Any) -> pd.DataFrame:
    """The rows of one layer."""
    import pandas as pd

    read = {"layer": layer.number, "site": layer.site}
    seen = {
        name: {
            concept: unit_responses(model, pictures, **read).values.float().cpu().numpy()
            for concept, pictures in own.items()
        }
        for name, own in formats.items()
    }
    concepts = list(next(iter(seen.values())))
    first = np.stack([_least(seen, concept) for concept in concepts])
    rows = []
    for place, concept in enumerate(concepts):
        units = np.flatnonzero(first.argmax(0) == place)
        if len(units):
            found = cross_format_index(_pairs(seen, concept, 1, units), draws=200)
            found["neuron"] = [Neuron(layer.number, int(units[i]), "vision") for i in found["unit"]]
            rows.append(found.assign(concept=concept))
    table = pd.concat(rows, ignore_index=True)
    kept = ["neuron", "concept", "z", "z_low", "z_high", *(f"z {name}" for name in formats)]
    return table[kept].sort_values("neuron", key=lambda ones: [one.unit for one in ones])  # type: ignore[call-overload]


def _least(seen: Any, concept: str) -> np.ndarray:
    """Float[unit]: the least z on the first half of the pictures."""
    pairs = _pairs(seen, concept, 0, slice(None))
    parts = [
        (own.mean(0) - rest.mean(0)) / np.maximum(rest.std(0), 1e-9) for own, rest in pairs.values()
    ]
    return np.min(parts, axis=0)


def _pairs(seen: Any, concept: str, which: int, units: Any) -> dict[str, Any]:
    """Per format the responses to a concept and to the others, in one half of the pictures."""
    return {
        name: (
            own[concept][which::2][:, units],
            np.concatenate([rows[which::2][:, units] for c, rows in own.items() if c != concept]),
        )
        for name, own in seen.items()
    }


@dataclass(eq=False)
class Drawer:
    """Feature visualisations of units, made some side by side; only of those that are asked for.

    Attributes:
        each: so many units of a layer, those of the sharpest peaks.
    """

    model: HookedModel
    layers: Mapping[int, Layer]
    each: int
    made: dict[Neuron, Image.Image] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.each} units of {SIDE} pixels, {STEPS} steps"

    def some(self, neurons: Sequence[Neuron]) -> None:
        """Make the pictures of these, which `__call__` then gives."""
        self.made = {}
        if not neurons:
            return
        layer = self.layers[neurons[0].layer]
        asked = None if layer.site == "vision.resid_post" else layer.site
        site = site_before_last(self.model, layer.number, asked)  # a ReLU that is off has no slope
        shorter = min(self.model.towers["vision"].image_size)  # type: ignore[attr-defined]
        size = min(SIDE, int(shorter))
        for i in range(0, len(neurons), BESIDE):
            some = list(neurons[i : i + BESIDE])
            found = visualise(self.model, some, site=site, size=size, steps=STEPS,
                              batch=BESIDE)  # fmt: skip
            self.made |= {one: found.picture(row) for row, one in enumerate(some)}

    def __call__(self, neuron: Neuron) -> Image.Image:
        return self.made[neuron]


def _kept(place: Path, told: str, make: Any) -> pd.DataFrame:
    """A table from its file, or made and written there."""
    import pandas as pd

    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = place / f"{name}.csv"
    if not path.is_file():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.StringIO()
        make().to_csv(buffer, index=False)
        write_whole(path, buffer.getvalue())
    return pd.read_csv(path, keep_default_na=False)


def _digest(formats: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
    """A hash of all pictures."""
    from mmlens.values.pictures import open_picture

    found = hashlib.sha256()
    for name, own in formats.items():
        for concept, seen in own.items():
            found.update(f"{name}\0{concept}\0".encode())
            for one in seen:
                found.update(open_picture(one).tobytes())
    return found.hexdigest()
