"""The numbers of a dictionary's training, and its learning rate.

Kinds, by what is kept of the code of a batch of rows:

    topk          the k largest of each row           Gao et al. 2024, arXiv 2406.04093
    batchtopk     the k * rows largest of the batch   Bussmann et al. 2024, arXiv 2412.06410
    matryoshka    as batchtopk, and the first units   Bussmann et al. 2025, arXiv 2503.17547
                  alone have to reconstruct, too

Adam, decoder rows of length 1, gradients cut at length 1, an auxiliary loss for latents that have
not been active for `dead_after` rows (Gao et al., appendix A.2): coefficient 1/32, and half as many
of them as the activations have coordinates. The rate rises over `warmup` steps and falls to 0 over
the last fifth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mmlens.datasets.caption_pairs import DataError
from mmlens.values.arguments import choice, count, number

KINDS = ("topk", "batchtopk", "matryoshka")


@dataclass(frozen=True)
class DictionaryRecipe:
    """What `fit_dictionary` was asked for; see there.

    Raises:
        ArgumentError, DataError: a number that trains nothing.
    """

    kind: str
    units: int
    k: int
    steps: int
    batch_size: int
    lr: float
    warmup: int
    dead_after: int
    buffer: int
    seed: int
    auxiliary: float = 1 / 32
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        choice(self.kind, "kind", KINDS, error=DataError)
        for name in ("units", "steps", "batch_size", "dead_after", "buffer"):
            count(getattr(self, name), name, error=DataError)
        count(self.k, "k", most=self.units, error=DataError)
        for name in ("warmup", "seed"):
            count(getattr(self, name), name, least=0, error=DataError)
        if not number(self.lr, "lr", error=DataError) > 0:
            raise DataError(f"lr={self.lr} teaches nothing: write 4e-4 or so.")
        number(self.auxiliary, "auxiliary", least=0, error=DataError)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """How many of the first units reconstruct alone: all, and in a matryoshka fewer, too."""
        if self.kind != "matryoshka":
            return (self.units,)
        if self.groups:
            return tuple(sorted({*self.groups, self.units}))
        shares = (16, 8, 4, 2, 1)
        return tuple(sorted({max(1, self.units // share) for share in shares}))

    def rate(self, step: int) -> float:
        """The part of `lr` that step number `step` (from 0) takes."""
        rise = min(1.0, (step + 1) / max(1, min(self.warmup, self.steps // 10)))
        fall = min(1.0, (self.steps - step) / max(1, self.steps // 5))
        return min(rise, fall)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"groups": list(self.groups)}
