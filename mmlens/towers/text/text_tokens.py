"""Texts to token ids and to the words of their positions, whichever library made the tokenizer.

open_clip's tokenizers are called with texts and return ids Int[text, pos] of one fixed length; the
tokenizers of transformers return a mask as well, and pad to the longest text of a batch, or to a
fixed length where a model was trained so (SigLIP: 64, unmasked).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmlens.values.arguments import shown
from mmlens.values.errors import ArgumentError, PromptError

SAMPLE = "a photo of a dog"


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Texts as ids.

    Attributes:
        ids: Int[text, pos].
        mask: Bool[text, pos], False at padding; None where the encoder takes no mask.
        lengths: per text the number of positions before its padding.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    lengths: tuple[int, ...]


class TextTokens:
    """A tokenizer of open_clip or transformers, or any function of texts that returns ids.

    Args:
        tokenizer: it; None for an encoder that is given ids alone.
        length: the most positions the encoder has.
        fixed: whether every text is padded to `length` without a mask, as SigLIP was trained.

    Raises:
        ArgumentError: it is no tokenizer.
    """

    def __init__(self, tokenizer: Any, length: int, fixed: bool = False) -> None:
        if tokenizer is not None and not callable(tokenizer):
            raise ArgumentError(
                f"tokenizer={shown(tokenizer)} is no tokenizer: give what open_clip.get_tokenizer"
                " or AutoTokenizer.from_pretrained of transformers returns."
            )
        self.tokenizer: Any = tokenizer
        self.length, self.fixed = length, fixed
        inner = getattr(tokenizer, "tokenizer", None)
        self.inner: Any = inner if hasattr(inner, "convert_ids_to_tokens") else tokenizer
        self.of_transformers = self.inner is tokenizer and hasattr(tokenizer, "model_input_names")

    def __call__(self, texts: Sequence[str]) -> TokenIds:
        """The ids of some texts.

        Raises:
            PromptError: there is no tokenizer.
        """
        if self.tokenizer is None:
            raise PromptError(
                "This text encoder has no tokenizer: give one, as in mm.from_model(model,"
                " preprocess, tokenizer), or token ids instead of words."
            )
        if not self.of_transformers:
            return self.given(self.tokenizer(list(texts)))
        how = {"padding": "max_length" if self.fixed else True, "truncation": True}
        read = self.tokenizer(
            list(texts), max_length=self.length, return_tensors="pt", return_attention_mask=True,
            **how,
        )  # fmt: skip
        mask = read["attention_mask"].bool()
        lengths = tuple(mask.sum(-1).tolist())
        return TokenIds(read["input_ids"], None if self.fixed else mask, lengths)

    def given(self, ids: torch.Tensor) -> TokenIds:
        """Ids as they are; what comes before the run of padding at their end is the text."""
        lengths = tuple(map(self._length, ids.tolist()))
        if self.fixed or not self.of_transformers:
            return TokenIds(ids, None, lengths)
        ends = torch.tensor(lengths, device=ids.device)[:, None]
        return TokenIds(ids, torch.arange(ids.shape[1], device=ids.device) < ends, lengths)

    @property
    def pad(self) -> int | None:
        """The id that fills a text up: the tokenizer's, or 0 (open_clip's own tokenizer)."""
        return getattr(self.inner, "pad_token_id", 0 if self.tokenizer is not None else None)

    def words(self, ids: Sequence[int]) -> list[str]:
        """The piece of text of each id, "</w>" being a space."""
        return [self._word(token) for token in ids]

    def _length(self, row: list[int]) -> int:
        end, pad = len(row), self.pad
        while end > 1 and row[end - 1] == pad:
            end -= 1
        closes = pad is not None and pad == getattr(self.inner, "eos_token_id", None)
        return min(len(row), end + closes)

    def _word(self, token: int) -> str:
        if hasattr(self.inner, "convert_ids_to_tokens"):
            piece = str(self.inner.convert_ids_to_tokens(token))
            return piece.replace("</w>", " ").replace("\u2581", " ")
        decode = getattr(self.inner, "decode", None)
        return str(decode([token])) if decode is not None else str(token)
