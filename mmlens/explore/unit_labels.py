"""What the labels of pictures have to do with a unit: both conditional distributions.

From the peaks of a unit (its largest activation in each picture) and the labels of the pictures:
the histogram of all pictures, and that of the pictures with a label. One over the other is
P(label | activation); the second alone is P(activation | label) (Goh et al. 2021, conditional
probability plots).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BINS, LEAST = 24, 5
"""Bins of a histogram; the fewest pictures that have a label, and that lack it."""
STRONGEST = 0.05
"""The share of the pictures that counts as strongest."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Which pictures have which label.

    Attributes:
        names: of the labels, sorted.
        having: of each picture.
    """

    names: tuple[str, ...]
    having: Bool[Tensor, "picture label"]


@dataclass(frozen=True, eq=False)
class LabelsOfUnits:
    """The histograms of a layer's units, and the labels that set their pictures apart.

    Attributes:
        low, high: the ends of the histogram, which are the extremes of the peaks.
        counts: pictures per bin.
        label: the labels whose pictures have the highest peaks; -1 where there are fewer.
        apart: mean peak with a label minus without, in standard deviations of all peaks.
        strong: among the strongest pictures, how many have it.
        having: pictures per bin that have it.
        n_strong: how many pictures are the strongest.
    """

    low: Float[Tensor, " unit"]
    high: Float[Tensor, " unit"]
    counts: Int[Tensor, "unit bin"]
    label: Int[Tensor, "unit k"]
    apart: Float[Tensor, "unit k"]
    strong: Int[Tensor, "unit k"]
    having: Int[Tensor, "unit k bin"]
    n_strong: int


def label_table(labels: Sequence[Sequence[str]]) -> LabelTable:
    """The labels that at least `LEAST` pictures have and as many lack.

    Args:
        labels: of each picture.
    """
    often = Counter(name for row in labels for name in set(row))
    names = sorted(n for n, count in often.items() if LEAST <= count <= len(labels) - LEAST)
    at = {name: i for i, name in enumerate(names)}
    having = torch.zeros(len(labels), len(names), dtype=torch.bool)
    for picture, row in enumerate(labels):
        for name in row:
            if name in at:
                having[picture, at[name]] = True
    return LabelTable(tuple(names), having)


def labels_of_units(
    peaks: Float[Tensor, "unit picture"], table: LabelTable, k: int = 5
) -> LabelsOfUnits:
    """The histograms, and for each unit the `k` labels that go with high peaks."""
    values = peaks.float()
    low, high = values.amin(1), values.amax(1)
    wide = (high - low).clamp(min=1e-12)
    at = ((values - low[:, None]) / wide[:, None] * BINS).long().clamp(0, BINS - 1)
    units, n = values.shape
    ones = torch.ones_like(at)
    counts = torch.zeros(units, BINS, dtype=torch.long).scatter_add_(1, at, ones)
    n_strong = min(n, max(LEAST, round(STRONGEST * n)))
    label, apart = _apart(values, table.having, k)
    strong = torch.zeros_like(label)
    having = torch.zeros(units, label.shape[1], BINS, dtype=torch.long)
    best = values.topk(n_strong, dim=1).indices
    for rank in range(label.shape[1]):
        mine = table.having.T[label[:, rank].clamp(min=0)].long()  # [unit, picture]
        having[:, rank].scatter_add_(1, at, mine)
        strong[:, rank] = mine.gather(1, best).sum(1)
    return LabelsOfUnits(low, high, counts, label, apart, strong, having, n_strong)


def _apart(values: Tensor, having: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The labels of the largest difference of means over the standard deviation, above 0."""
    n, most = len(having), min(k, having.shape[1])
    if not most:
        return torch.zeros(len(values), 0, dtype=torch.long), torch.zeros(len(values), 0)
    spread = values.std(1, correction=0)
    z = (values - values.mean(1, keepdim=True)) / spread.clamp(min=1e-12)[:, None]
    z[spread <= 1e-6 * values.abs().amax(1)] = 0.0  # a unit that is the same everywhere
    with_it = having.float().sum(0)
    total = z @ having.float()
    apart, label = (total / with_it + total / (n - with_it)).topk(most, dim=1)  # z sums to 0
    return torch.where(apart > 0, label, -1), apart
