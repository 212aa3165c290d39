"""Where a generated text ends: at an end token, or at a stop string.

A language model that was trained on captions ends them by itself. Others continue ("a lion." and
then "The question is ..."), and each of its words is explained by a backward pass. `SENTENCE` ends
a text at its first sentence or line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import several
from mmlens.values.errors import ArgumentError

SENTENCE = (".", "!", "?", "\n")
"""What ends the first sentence or line."""
Stop = str | Iterable[str] | None


@dataclass(frozen=True)
class TextEnd:
    """How a text is cut.

    Attributes:
        lm: the language model whose tokens are read.
        ids: tokens that end a text and are no part of it.
        stop: strings that end it. A stop string is kept as its end, unless it is white space;
            leading white space does not end the text.
    """

    lm: Any = field(repr=False)
    ids: Sequence[int] = ()
    stop: tuple[str, ...] = ()

    def of(self, row: Sequence[int]) -> tuple[list[int], bool]:
        """The tokens of the text, and whether it has ended."""
        text, kept = "", []
        for token in row:
            if token in self.ids:
                return kept, True
            piece = word(self.lm, token) if self.stop else ""
            whole = (text + piece).lstrip()
            begins = len(text + piece) - len(whole)
            ends = [whole.find(one) + len(one) for one in self.stop if one in whole]
            if ends:
                own = piece[: max(0, min(ends) + begins - len(text))]
                return (kept + [token] if own.strip() else kept), True
            text += piece
            kept.append(token)
        return kept, False


def stops(stop: Stop) -> tuple[str, ...]:
    """The stop strings, as a tuple.

    Raises:
        ArgumentError: no text, or an empty one, which would end every text at once.
    """
    if stop is None:
        return ()
    many = (stop,) if isinstance(stop, str) else tuple(several(stop, "stop", what="list of texts"))
    for one in many:
        if not isinstance(one, str) or not one:
            raise ArgumentError(
                f"stop={stop!r}: write what ends the text, as in stop='.', or several, or None."
            )
    return many


def criterion(end: TextEnd, begins: int) -> Any:
    """The same as a stopping criterion of transformers: ids Int[batch, pos] to Bool[batch].

    Args:
        begins: how many positions the prompt has.
    """
    from transformers import StoppingCriteria, StoppingCriteriaList

    class _Ended(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            done = [end.of(row)[1] for row in input_ids[:, begins:].tolist()]
            return torch.tensor(done, device=input_ids.device)

    return StoppingCriteriaList([_Ended()])
