"""Logits processors: functions that change the next token's logits while a text is generated.

    def no_dogs(ids, logits):                   # Int[row, new], Float[row, d_vocab]
        logits[:, dog] = -inf
        return logits

    model.generate(prompt, logits_processor=no_dogs)

They are called as transformers calls its own, before temperature and top-k, but `ids` are the new
tokens alone: a prompt with pictures has positions that are no tokens. Rows are those of the batch,
of beams each its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmlens.values.arguments import function, shown
from mmlens.values.errors import ArgumentError
from mmlens.values.written import written

LogitsProcessor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(ids Int[row, new], logits Float[row, d_vocab]) -> Float[row, d_vocab]"""


def listed(given: Any) -> list[LogitsProcessor]:
    """One processor or several as a list; None as none.

    Raises:
        ArgumentError: one of them cannot be called with two arguments.
    """
    several = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    for one in several:
        function(one, "logits_processor", "a function of (ids, logits), or several", takes=2)
    return several


def processed(
    given: Sequence[LogitsProcessor], ids: torch.Tensor, logits: torch.Tensor
) -> torch.Tensor:
    """The logits after all processors.

    Args:
        ids: Int[row, new], the tokens generated so far.

    A processor may write into the logits that it is given: they are a copy.

    Raises:
        ArgumentError: a processor returns something else than logits, or leaves no token.
    """
    for one in given:
        out = one(ids, logits.clone())
        if not isinstance(out, torch.Tensor) or out.shape != logits.shape:
            told = tuple(out.shape) if isinstance(out, torch.Tensor) else shown(out)
            raise ArgumentError(
                f"A logits processor must return logits of shape {tuple(logits.shape)}, not {told}."
            )
        if bool(out.isnan().any()) or not bool(out.isfinite().any(-1).all()):
            raise ArgumentError(
                f"The logits processor {written(one)!r} returns"
                " NaN, or leaves no token that can follow: set some logits to -inf, never all."
            )
        logits = out
    return logits


class BehindThePrompt:
    """Processors as transformers calls them: with the ids of the prompt in front.

    Args:
        length: how many positions the prompt has.
    """

    def __init__(self, given: Sequence[LogitsProcessor], length: int) -> None:
        self.given, self.length = given, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return processed(self.given, input_ids[:, self.length :], scores)
