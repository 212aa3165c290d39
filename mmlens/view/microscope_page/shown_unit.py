"""What the site shows of one unit, as plain values, and the same as compact JSON.

The page's script reads the JSON (`static/unit.js`, `static/list.js`): the two change together.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmlens.view.style.printed import visible

Pointer = tuple[int, int, float, int]
"""Another unit: layer, unit, how strongly, and the number of its top picture (-1: none)."""
SHOWN = 4
"""Pictures of a unit in the list."""


@dataclass(frozen=True)
class TopPicture:
    """A picture that excites a unit.

    Attributes:
        picture: its number in the data.
        name: its id in the data.
        value: the largest activation there.
        map: UInt8[row, col], 0 to 15, where; None where it is not known.
    """

    picture: int
    name: str
    value: float
    map: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LabelCard:
    """A label that goes with high activations.

    Attributes:
        label: its number among the labels of the site.
        apart: how much higher the peaks are with it, in standard deviations.
        strong: of the strongest pictures, how many have it.
        counts: of the pictures in each bin of the histogram, how many have it.
    """

    label: int
    apart: float
    strong: int
    counts: Sequence[int]


@dataclass(frozen=True)
class UnitCard:
    """Everything that the site shows of one unit; what is empty is left out there.

    Attributes:
        unit: its number in the layer.
        spread: smallest, mean, standard deviation and largest activation over all patches.
        tops: the top pictures, the first first.
        histogram: the lowest and highest peak, and pictures per bin between.
        labels: the labels that go with high peaks.
        alike: nearest units by correlation of their peaks; `writes`: by output weights.
        fed_by, feeds: strongest weights from the layer before, to the layer after.
        says: (word, probability) of what it decodes to, in a language model.
        words: (rendered word, activation) of the word probe.
        formats: of the cross-format index: `index`, `low`, `high`, `concept`, and one number per
            format.
        drawn: files with feature visualisations, relative to the site.
    """

    unit: int
    spread: tuple[float, float, float, float]
    tops: Sequence[TopPicture] = ()
    histogram: tuple[float, float, Sequence[int]] | None = None
    labels: Sequence[LabelCard] = ()
    alike: Sequence[Pointer] = ()
    writes: Sequence[Pointer] = ()
    fed_by: Sequence[Pointer] = ()
    feeds: Sequence[Pointer] = ()
    says: Sequence[tuple[str, float]] = ()
    words: Sequence[tuple[str, float]] = ()
    formats: Mapping[str, float | str] = field(default_factory=dict)
    drawn: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        """The unit as its page reads it."""
        out: dict[str, Any] = {
            "r": [rounded(value) for value in self.spread],
            "t": [
                [one.picture, one.name, rounded(one.value), packed(one.map)] for one in self.tops
            ],
        }
        if self.histogram is not None:
            low, high, counts = self.histogram
            out["h"] = [rounded(low), rounded(high), list(counts)]
        out["l"] = [[x.label, rounded(x.apart), x.strong, list(x.counts)] for x in self.labels]
        named = (self.alike, self.writes, self.fed_by, self.feeds)
        for key, rows in zip("cwio", named, strict=True):
            out[key] = [[layer, unit, rounded(value), top] for layer, unit, value, top in rows]
        out["d"] = [[visible(word), rounded(prob)] for word, prob in self.says]
        out["p"] = [[word, rounded(value)] for word, value in self.words]
        out["f"] = {
            name: value if isinstance(value, str) else rounded(value)
            for name, value in self.formats.items()
        }
        out["v"] = list(self.drawn)
        return {key: value for key, value in out.items() if value}

    def row(self) -> list[Any]:
        """The unit in the list: what is shown of it there, sorted and searched by."""
        _, mean, spread, high = self.spread
        label = self.labels[0] if self.labels else None
        return [
            rounded(high),
            rounded((high - mean) / spread if spread > 0 else 0.0),
            [one.picture for one in self.tops[:SHOWN]],
            [label.label, rounded(label.apart)] if label else 0,
            [word for word, _ in (self.words or self.says)[:3]],
            rounded(float(self.formats["index"])) if "index" in self.formats else None,
        ]


def rounded(value: float) -> float | int | None:
    """Four digits; None where it is no number."""
    if not np.isfinite(value):
        return None
    short = float(f"{float(value):.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def packed(levels: np.ndarray | None) -> str:
    """A map of 16 levels in base64, two cells a byte, the first in the high half."""
    if levels is None or not levels.any():
        return ""
    flat = levels.astype(np.uint8).ravel()
    flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return base64.b64encode((flat[0::2] << 4 | flat[1::2]).tobytes()).decode("ascii")
