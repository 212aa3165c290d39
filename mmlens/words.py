"""Words and token ids: which id a word is, and what ids say."""

from __future__ import annotations

from typing import Any

import torch

from mmlens.errors import PromptError, TargetError
from mmlens.lm import LanguageModel


def ids_of(lm: LanguageModel, text: str) -> list[int]:
    """The ids of a text, without special tokens.

    Raises:
        PromptError: the model has no tokenizer.
    """
    if lm.tokenizer is None:
        raise PromptError(f"This model has no tokenizer: give token ids instead of {text!r}.")
    return list(lm.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def word(lm: LanguageModel, token: int) -> str:
    """The text of one id (the id itself where there is no tokenizer)."""
    return str(token) if lm.tokenizer is None else lm.tokenizer.decode([token])


def text(lm: LanguageModel, tokens: Any) -> Any:
    """Text of ids [pos], or a list of texts of ids [batch, pos]; patches (-1) are left out."""
    tokens = torch.as_tensor(tokens)
    if tokens.ndim == 2:
        return [text(lm, row) for row in tokens]
    ids = [int(i) for i in tokens.reshape(-1) if int(i) >= 0]
    return " ".join(map(str, ids)) if lm.tokenizer is None else lm.tokenizer.decode(ids)


def single_token(lm: LanguageModel, spelled: str) -> int:
    """The id of a word that is exactly one token.

    Raises:
        TargetError: it is several tokens or none; the pieces and the nearest form are shown.
    """
    ids = ids_of(lm, spelled)
    if len(ids) == 1:
        return ids[0]
    other = spelled[1:] if spelled.startswith(" ") else f" {spelled}"
    if spelled and len(ids_of(lm, other)) == 1:
        advice = f"write {other!r}, which is one"
    else:
        advice = "name one piece, or give a callable on the logits as target"
    pieces = [word(lm, token) for token in ids]
    raise TargetError(f"{spelled!r} is {len(ids)} tokens here ({pieces!r}), not one: {advice}.")
