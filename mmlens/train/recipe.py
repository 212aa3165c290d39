"""The numbers of a training, LiMBeR's where nothing else is said, and its learning rate.

AdamW with betas (0.9, 0.95), no weight decay, gradient norm clipped at 1, dropout 0.1 on the soft
prompt, and DeepSpeed's WarmupDecayLR: 0 -> 8e-4 over 100 steps in the logarithm of the step, then
linearly to 0 at the last one (configs of jmerullo/limber; 15,000 steps of 2048 pictures there).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mmlens.datasets.caption_pairs import DataError
from mmlens.values.arguments import count, number


@dataclass(frozen=True)
class TrainingRecipe:
    """What `fit` was asked for; see there.

    Raises:
        DataError: a number that trains nothing, or uphill.
    """

    steps: int
    batch_size: int
    lr: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: int = 100
    dropout: float = 0.1
    seed: int = 0
    accumulate: int = 1
    prefix: str | None = None
    max_tokens: int = 128

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "max_tokens"):
            count(getattr(self, name), name, error=DataError)
        for name in ("warmup", "seed"):
            count(getattr(self, name), name, least=0, error=DataError)
        if not 0 <= number(self.dropout, "dropout", error=DataError) < 1:
            raise DataError(f"dropout={self.dropout} is no probability below 1: LiMBeR's is 0.1.")
        if not number(self.lr, "lr", error=DataError) > 0:
            raise DataError(f"lr={self.lr} teaches nothing: LiMBeR's is 8e-4.")
        number(self.weight_decay, "weight_decay", least=0, error=DataError)
        if not self.clip > 0:  # a negative one would turn the gradient round
            raise DataError(
                f"clip={self.clip} is no length that a gradient can be cut to: LiMBeR's is 1,"
                " float('inf') cuts nothing."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise DataError(f"betas={self.betas} are not two numbers from 0 to below 1.")

    @property
    def pictures_per_step(self) -> int:
        """Pictures that one step of the optimizer sees, over all processes."""
        return self.batch_size * self.accumulate

    def rate(self, step: int) -> float:
        """The part of `lr` that step number `step` (from 0) takes; see the file's text.

        A short training warms up for a tenth of its steps.
        """
        warmup = min(self.warmup, self.steps // 10)
        if step < warmup:
            return math.log(step + 1) / math.log(max(warmup, 2))
        return max(0.0, (self.steps - step) / max(1, self.steps - warmup))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"betas": list(self.betas)}
