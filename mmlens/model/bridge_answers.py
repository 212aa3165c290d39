"""What is asked of a bridge: one prompt, the number that is explained, and rows of logits."""

from __future__ import annotations

from typing import Any

import torch

from mmlens.model import readouts, targets
from mmlens.model.prompt_tokens import rows as rows_of
from mmlens.values.labels import Neuron
from mmlens.values.prompt import SoftPrompt


class Answering:
    """The base of a bridge that answers what methods ask about one prompt."""

    lm: Any
    run: Any

    def one(self, prompt: Any) -> SoftPrompt:
        """The soft prompt of one prompt, without padding.

        Raises:
            PromptError: several prompts.
        """
        model: Any = self
        return targets.one(model, prompt)

    def answer_rows(self, reading: Any, rows: torch.Tensor) -> torch.Tensor:
        """The logits of these positions of one prompt, Float[k, d_vocab]."""
        return self.run(reading, at=rows.to(self.lm.device))[0]

    def side_by_side(
        self, reading: Any, n: int, *, position: int = -1, tower: str = "", grad: bool = False
    ) -> torch.Tensor:
        """The logits of one position of each of `n` copies of a prompt: Float[n, d_vocab]."""
        position = position % reading.ids.shape[1]
        at = torch.tensor([position], device=self.lm.device)
        return self.run(rows_of(reading, [0] * n), at=at, grad=grad)[:, 0]

    def aim(
        self, prompt: Any, of: Any, target: Any = "logit", after: str | None = None
    ) -> tuple[SoftPrompt, targets.Target]:
        """One prompt, extended up to the explained token, and the scalar that is explained.

        `of` may be a Neuron of any tower, whose own activation is explained.

        Raises:
            TargetError: the word is not one token, or the model does not generate it.
        """
        model: Any = self
        if not isinstance(of, Neuron):
            return targets.aim(model, prompt, of, target, after)
        return targets.one(model, prompt), readouts.aim_unit(model, of, target)
