"""The largest of many scores that come layer by layer, kept without keeping the rest."""

from __future__ import annotations

import torch


class BestScores:
    """The k largest values so far, and their indices."""

    def __init__(self, k: int) -> None:
        self.k, self.floor = k, -torch.inf
        self.values = torch.empty(0)
        self.places = torch.empty(0, 3, dtype=torch.long)

    def add(self, layer: int, product: torch.Tensor) -> None:
        """Add a layer's product Float[pos, unit]."""
        flat, units = product.flatten(), product.shape[1]
        if not len(flat) or float(flat.max()) <= self.floor:  # most layers end here, in one pass
            return
        if self.floor == -torch.inf:
            new, at = flat.topk(min(self.k, len(flat)))
        else:
            at = (flat > self.floor).nonzero()[:, 0]
            new = flat[at]
        at = at.cpu()
        place = torch.stack([torch.full_like(at, layer), at // units, at % units], 1)
        values = torch.cat([self.values, new.float().cpu()])
        places = torch.cat([self.places, place])
        self.values, order = values.topk(min(self.k, len(values)))
        self.places = places[order]
        self.floor = float(self.values[-1]) if len(self.values) == self.k else -torch.inf

    def rows(self) -> list[tuple[float, int, int, int]]:
        """(value, layer, place, unit), the largest first."""
        return [(v, *p) for v, p in zip(self.values.tolist(), self.places.tolist(), strict=True)]
