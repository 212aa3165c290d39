"""Units that are alike: by what they do together, and by what they write.

Both are cosines between rows, one row per unit: of its peaks over pictures, centred (then the
cosine is Pearson's correlation), or of its output weights. All units of all layers are compared, a
block of two layers at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 1 << 24
"""The most cosines in memory at a time."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest others of every unit of a layer, the nearest first.

    Attributes:
        layer, unit: of each.
        value: the cosine; -inf where there is no other.
    """

    layer: Int[Tensor, "unit k"]
    unit: Int[Tensor, "unit k"]
    value: Float[Tensor, "unit k"]

    def of(self, unit: int) -> Iterator[tuple[int, int, float]]:
        """(layer, unit, cosine) of one unit's nearest."""
        rows = zip(
            *(part[unit].tolist() for part in (self.layer, self.unit, self.value)), strict=True
        )
        return ((layer, other, value) for layer, other, value in rows if value > -torch.inf)


def directions(rows: Float[Tensor, "unit n"], centred: bool) -> Float[Tensor, "unit n"]:
    """Rows of length 1; a row without a direction (a unit that never changes) becomes 0."""
    values = rows.float()
    values = values - values.mean(1, keepdim=True) if centred else values
    length = values.norm(dim=1, keepdim=True)
    least = 1e-6 * rows.float().norm(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.where(length > least, values / length.clamp(min=1e-30), torch.zeros_like(values))


def nearest(
    layer: int, rows: Mapping[int, Callable[[], Float[Tensor, "unit n"]]], k: int
) -> Nearest:
    """The `k` nearest others of each unit of a layer, among the units of all layers.

    Args:
        rows: per layer a function that gives its rows of length 1 or 0 (`directions`), so that not
            all of them are in memory at once.
    """
    mine = rows[layer]()
    alive = mine.abs().sum(1) > 0
    best = torch.full((len(mine), k), -torch.inf)
    where, who = torch.full((2, len(mine), k), -1)
    for number, other in rows.items():
        theirs = mine if number == layer else other()
        dead = theirs.abs().sum(1) == 0
        step = max(1, BLOCK // max(1, len(theirs)))
        for start in range(0, len(mine), step):
            part = slice(start, min(start + step, len(mine)))
            cosines = mine[part] @ theirs.T
            cosines[:, dead] = -torch.inf
            if number == layer:
                at = torch.arange(part.start, part.stop)
                cosines[at - part.start, at] = -torch.inf  # not a unit itself
            values, units = cosines.topk(min(k, cosines.shape[1]), dim=1)
            both = torch.cat([best[part], values], 1)
            order = both.argsort(dim=1, descending=True, stable=True)[:, :k]
            best[part] = both.gather(1, order)
            who[part] = torch.cat([who[part], units], 1).gather(1, order)
            layers = torch.cat([where[part], torch.full_like(units, number)], 1)
            where[part] = layers.gather(1, order)
    best[~alive] = -torch.inf
    return Nearest(where, who, best)
