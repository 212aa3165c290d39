"""Moments and quantiles of every cell.

Moments merge pairwise in float64 (Chan, Golub & LeVeque 1979); quantiles are a DDSketch (Masson et
al., VLDB 2019, arXiv:1908.10693): counts in bins whose width grows with the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmlens.tally.cells import Tally
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores


class Moments(Tally):
    """Mean, variance, minimum and maximum of every cell, each as Scores(the kept axes)."""

    def __init__(self, keep: Sequence[str] = ("layer", "unit")) -> None:
        super().__init__(keep)

    def _new(self, cells: int) -> dict[str, Tensor]:
        zero = torch.zeros(cells, dtype=torch.float64)
        return {"mean": zero, "m2": zero.clone(), "min": zero + math.inf, "max": zero - math.inf}

    def _take(self, kept: dict[str, Tensor], rows: Tensor, sample: int) -> None:
        rows = rows.double() if rows.device.type != "mps" else rows.cpu().double()
        mean = rows.mean(1)
        seen = {"mean": mean, "m2": (rows - mean[:, None]).square().sum(1)}
        seen |= {"min": rows.amin(1), "max": rows.amax(1)}
        self._combine(kept, {key: value.cpu() for key, value in seen.items()}, rows.shape[1])

    def _join(self, kept: dict[str, Tensor], other: Any) -> None:
        self._combine(kept, other._kept, other.count)

    def _combine(self, kept: dict[str, Tensor], seen: Mapping[str, Tensor], n: int) -> None:
        """Chan et al.: M2 = M2_a + M2_b + d^2 n_a n_b / n with d the difference of the means."""
        total = self.count + n
        if not total:
            return
        apart = seen["mean"] - kept["mean"]
        kept["m2"] += seen["m2"] + apart.square() * (self.count * n / total)
        kept["mean"] += apart * (n / total)
        torch.minimum(kept["min"], seen["min"], out=kept["min"])
        torch.maximum(kept["max"], seen["max"], out=kept["max"])

    @property
    def mean(self) -> Scores:
        """The mean."""
        return self._scores(self._kept.get("mean", torch.zeros(0)))

    @property
    def variance(self) -> Scores:
        """The variance, with n - 1 below the line; NaN of a single observation."""
        m2 = self._kept.get("m2", torch.zeros(0))
        return self._scores(m2 / (self.count - 1) if self.count > 1 else m2 * math.nan)

    @property
    def min(self) -> Scores:
        """The smallest value."""
        return self._scores(self._kept.get("min", torch.zeros(0)))

    @property
    def max(self) -> Scores:
        """The largest value."""
        return self._scores(self._kept.get("max", torch.zeros(0)))


class Quantiles(Tally):
    """Quantiles of every cell from counts in bins whose width grows with the value.

    Args:
        accuracy: largest relative error of a quantile.
        smallest, largest: magnitudes; below the first a value counts as 0, above the second as it.
            Bins per cell: 2 log(largest / smallest) / log((1 + accuracy) / (1 - accuracy)) + 1,
            193 with the defaults, 4 bytes each.
    """

    def __init__(
        self,
        keep: Sequence[str] = ("layer", "unit"),
        accuracy: float = 0.05,
        smallest: float = 1e-2,
        largest: float = 1e2,
    ) -> None:
        super().__init__(keep, accuracy=accuracy, smallest=smallest, largest=largest)
        if not (0 < accuracy < 1 and 0 < smallest < largest):
            raise AddressError(
                f"Quantiles({accuracy=}, {smallest=}, {largest=}): the accuracy lies between 0 and"
                " 1, and smallest is above 0 and below largest."
            )
        self.growth = (1 + accuracy) / (1 - accuracy)
        self.bins = math.ceil(math.log(largest / smallest) / math.log(self.growth))

    def _new(self, cells: int) -> dict[str, Tensor]:
        return {"counts": torch.zeros(cells, 2 * self.bins + 1, dtype=torch.int32)}

    def _take(self, kept: dict[str, Tensor], rows: Tensor, sample: int) -> None:
        rows = rows.cpu().double()
        steps = (rows.abs() / self.settings["smallest"]).clamp(min=1).log() / math.log(self.growth)
        at = steps.ceil().clamp(max=self.bins).long() * rows.sign().long() + self.bins
        kept["counts"].scatter_add_(1, at, torch.ones(1, 1, dtype=torch.int32).expand(at.shape))

    def _join(self, kept: dict[str, Tensor], other: Any) -> None:
        kept["counts"] += other._kept["counts"]

    def quantile(self, q: float) -> Scores:
        """The value that a share `q` of the observations does not exceed: Scores(kept axes)."""
        if not 0 <= q <= 1:
            raise AddressError(f"quantile({q}): a share lies between 0 and 1.")
        counts = self._kept.get("counts", torch.zeros(0, 1))
        rank = math.floor(q * (self.count - 1))
        at = (counts.cumsum(1) <= rank).sum(1) - self.bins
        size = self.growth ** at.abs().double() * (2 / (self.growth + 1))
        return self._scores(at.sign() * self.settings["smallest"] * size)
