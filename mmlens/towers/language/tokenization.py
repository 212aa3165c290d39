"""Words and token ids: tokenize and decode.

Some tokenizers put a space before every text (SentencePiece's dummy prefix, as Llama-2's "▁"), and
remove it again when they decode. So a text at the beginning (`ids_of`) and one that follows other
words (`ids_after`) have different ids, and a token is decoded as it prints after another: " dog",
never "dog" for both. With tokenizers that add nothing the two are the same.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from mmlens.towers.language.language_model import LanguageModel
from mmlens.values.arguments import shown
from mmlens.values.errors import PromptError, TargetError

_ENDS = ("\n", ".", ":", "a", "0")
"""Texts that are put before another and cut off again; one of them never merges with it."""
_behind: WeakKeyDictionary[Any, tuple[list[int], str]] = WeakKeyDictionary()
_PLACEHOLDER = re.compile(
    r"<\|?(?:image(?:_\d+|_pad|_token|_soft_token|_placeholder|_start|_end)?|vision_(?:start|end|pad)"
    r"|(?:start|begin|end)_of_image|img|img_context)\|?>|\[img\]",
    re.IGNORECASE,
)


def ids_of(lm: LanguageModel, text: str) -> list[int]:
    """The ids of a text at the beginning, without special tokens.

    Raises:
        PromptError: the model has no tokenizer.
    """
    return begin(_tokenizer(lm, text), text)


def ids_after(lm: LanguageModel, text: str, before: Sequence[int] = ()) -> list[int]:
    """The ids of a text that follows words with these ids, or a picture (see `follow`)."""
    return follow(_tokenizer(lm, text), text, before)


def begin(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text as the tokenizer reads it alone, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def follow(tokenizer: Any, text: str, before: Sequence[int] = ()) -> list[int]:
    """The ids of a text that follows something.

    Args:
        before: ids of the words before it; none where a picture stands there. After a picture, a
            text that starts with a space is read as after words, any other as at the beginning.
    """
    if not before and not text.startswith(" "):
        return begin(tokenizer, text)
    return _within(tokenizer, text, before)


def _within(tokenizer: Any, text: str, before: Sequence[int] = ()) -> list[int]:
    """The ids of a text within a text: those it has after other words.

    The words before it keep their ids: where both would merge into one token, the text is read
    after words that it does not merge with.
    """
    ways: list[list[int]] = []
    for ids in _readings(tokenizer, text, before) if text else ():
        if printed(tokenizer, ids) == text:
            return ids
        ways.append(ids)
    return ways[0] if ways else []


def _readings(tokenizer: Any, text: str, before: Sequence[int]) -> Iterator[list[int]]:
    """Candidate ids of a text that follows other words, the most likely first.

    A candidate that decodes to the text is right. None does where the tokenizer normalizes texts
    (lower case, composed letters): then the first is taken.
    """
    words = _since_special(tokenizer, before)
    context = tokenizer.decode(words, clean_up_tokenization_spaces=False) if words else ""
    if context and begin(tokenizer, context) == words:
        yield from _cut(tokenizer, context, words, text)
    alone = begin(tokenizer, text)
    if printed(tokenizer, alone) == text:
        yield alone
    for end in _ENDS:
        yield from _cut(tokenizer, end, begin(tokenizer, end), text)
    yield alone


def _cut(tokenizer: Any, end: str, head: list[int], text: str) -> list[list[int]]:
    """The ids of `text` after `end`, if `end` keeps its ids there."""
    whole = begin(tokenizer, end + text)
    return [whole[len(head) :]] if head and whole[: len(head)] == head else []


def _since_special(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    special = set(tokenizer.all_special_ids)
    start = max((i + 1 for i, token in enumerate(ids) if token in special), default=0)
    return list(ids[start:])


def printed(tokenizer: Any, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """The text of ids as they decode after other words, with every space."""
    options = {"clean_up_tokenization_spaces": False, "skip_special_tokens": skip_special_tokens}
    if tokenizer not in _behind:
        head = begin(tokenizer, "a")
        _behind[tokenizer] = head, tokenizer.decode(head, clean_up_tokenization_spaces=False)
    head, shown = _behind[tokenizer]
    whole = tokenizer.decode([*head, *ids], **options)
    return whole[len(shown) :] if whole.startswith(shown) else tokenizer.decode(ids, **options)


def word(lm: LanguageModel, token: int) -> str:
    """The text of one id as it decodes after another (the id itself without a tokenizer)."""
    return str(token) if lm.tokenizer is None else printed(lm.tokenizer, [token])


def text(lm: LanguageModel, tokens: Any) -> Any:
    """Text of ids [pos], or a list of texts of ids [batch, pos]; patches (-1) are left out."""
    tokens = ids_from(tokens).as_subclass(torch.Tensor)  # not ids that carry pictures
    if tokens.ndim == 2:
        return [text(lm, row) for row in tokens]
    ids = [int(i) for i in tokens.reshape(-1) if int(i) >= 0]
    if lm.tokenizer is None:
        return " ".join(map(str, ids))
    return lm.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def ids_from(tokens: Any) -> torch.Tensor:
    """Ids from a tensor, an array, a list or a number.

    Raises:
        TargetError: they are no ids.
    """
    try:
        ids = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # raised by torch for other types
        ids = torch.tensor(math.nan)
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        raise TargetError(
            f"tokens={shown(tokens)}: give ids, which are whole numbers, in a list or a tensor."
        )
    return ids


def checked_ids(lm: LanguageModel, tokens: Any) -> torch.Tensor:
    """Ids of tokens of the model.

    Raises:
        TargetError: one is no token.
    """
    ids, size = ids_from(tokens), int(lm.root.W_U.shape[-1])
    wrong = ids[(ids < 0) | (ids >= size)]
    if not ids.numel() or wrong.numel():
        raise TargetError(
            f"{int(wrong[0]) if wrong.numel() else shown(tokens)} is no token of this model: give"
            f" ids from 0 to {size - 1}."
        )
    return ids


def single_token(lm: LanguageModel, spelled: str) -> int:
    """The id of a word that is exactly one token.

    Raises:
        TargetError: it is several tokens or none; the pieces and the nearest form are shown.
    """
    if not isinstance(spelled, str):
        raise TargetError(f"{spelled!r} is no word: write one token as text, as in ' dog'.")
    tokenizer = _tokenizer(lm, spelled)
    ids = _within(tokenizer, spelled)
    if len(ids) == 1:
        return ids[0]
    other = spelled[1:] if spelled.startswith(" ") else f" {spelled}"
    if spelled and len(_within(tokenizer, other)) == 1:
        advice = f"write {other!r}, which is one"
    else:
        advice = "name one piece, or give a callable on the logits as target"
    pieces = [word(lm, token) for token in ids]
    raise TargetError(f"{spelled!r} is {len(ids)} tokens here ({pieces!r}), not one: {advice}.")


def id_of(lm: LanguageModel, word: Any) -> int:
    """The id of a word of one token, or an id that is checked.

    Raises:
        TargetError: several tokens, or an id outside the vocabulary.
    """
    if isinstance(word, str):
        return single_token(lm, word)
    size = int(lm.root.W_U.shape[-1])
    try:
        token = -1 if isinstance(word, bool) else operator.index(word)
    except TypeError:
        token = -1
    if not 0 <= token < size:
        raise TargetError(
            f"{word!r} is no token of this model: write a word as text, as in ' dog', or an id from"
            f" 0 to {size - 1}."
        )
    return token


def placeholder(tokenizer: Any, text: str) -> str | None:
    """A token that other models use for a picture, if the text contains one."""
    known = {getattr(tokenizer, "image_token", None)}
    known |= {
        t for t in getattr(tokenizer, "all_special_tokens", ()) if re.search("(?i)ima?ge?", t)
    }
    spelled = next((t for t in known if t and str(t) in text), None)
    match = _PLACEHOLDER.search(text)
    return str(spelled) if spelled else match[0] if match else None


def _tokenizer(lm: LanguageModel, text: str) -> Any:
    if lm.tokenizer is None:
        raise PromptError(f"This model has no tokenizer: give token ids instead of {text!r}.")
    return lm.tokenizer
