"""One prompt and one word: its logit as the model is, and with an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import readouts
from mmlens.model.targets import aim, extend, one
from mmlens.towers.language.tokenization import id_of, word
from mmlens.values.edit import Edit
from mmlens.values.errors import TargetError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


class ExplainedWord:
    """What graphs explain: numbers with and without a part.

    Attributes:
        soft, aimed: the prompt up to the word, and the number: a logit, or a difference of two.
        labels: of the positions of the prompt, without the words that were said before the word.
        tokens: the id of the word, and of the one that is subtracted.
        word: its text, " dog", or " dog - cat" of a difference.
        whole: the number.
    """

    def __init__(
        self,
        model: HookedVLM,
        prompt: Any,
        of: str | int,
        after: str | None,
        minus: str | int | None = None,
    ) -> None:
        self.model, self.prompt = model, prompt
        tokens = [id_of(model.lm, each) for each in (of, minus) if each is not None]
        if len(tokens) < 2:  # without a word `aim` refuses
            target: Any = "logit"
        elif tokens[0] == tokens[1]:
            raise TargetError(f"The logit of {of!r} less its own is 0: name two different words.")
        else:
            target = lambda logits: logits[tokens[0]] - logits[tokens[1]]  # noqa: E731
        self.soft, self.aimed = aim(model, prompt, of, target, after)
        start = one(model, prompt)
        self.labels, self.said = start.labels[0], self.soft.ids[0, start.ids.shape[1] :].tolist()
        self.tokens = tokens
        self.word = " -".join(word(model.lm, token) for token in tokens)
        self.whole = self._logit(model)

    def without(self, *edits: Edit) -> float:
        """How much lower the number is with these edits."""
        return self.whole - self._logit(self.model.edit(*edits))

    def _logit(self, model: HookedVLM) -> float:
        """The number, after the same words."""
        with torch.no_grad():
            soft = extend(model, one(model, self.prompt), self.said)
            return float(self.aimed.number(readouts.answers(model, soft, [self.aimed])[0]))
