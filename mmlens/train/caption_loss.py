"""LiMBeR's sequence and its loss (Merullo et al., arXiv 2209.15162; code of jmerullo/limber).

    [image tokens] [prefix] [caption] [EOS] [pad = EOS]        what the language model reads
     -100 ... -100  -100 ... w1 ... wn  EOS  -100 ...          the labels

    L = - mean over labelled t of log p(w_t | P E(I), w_<t)

Hugging Face shifts labels by one, so the last image position predicts the first word (with a
prefix, the prefix's last token does). The first EOS is a target, so captions learn to stop; what
comes after it is padding. Only the image positions carry a gradient to the projection.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.towers.language.tokenization import follow
from mmlens.values.errors import CapabilityError

IGNORED = -100


@dataclass(frozen=True)
class CaptionTokens:
    """The words of a batch, to stand right of the pictures.

    Attributes:
        ids: Int[batch, word], padded on the right with EOS.
        labels: Int[batch, word], the same with -100 on the prefix and after the first EOS.
        mask: Int[batch, word], 0 on padding.
    """

    ids: Tensor
    labels: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> CaptionTokens:
        """The same on another device."""
        return CaptionTokens(
            *(getattr(self, name).to(device) for name in ("ids", "labels", "mask"))
        )

    def silent(self, rows: Sequence[int]) -> CaptionTokens:
        """The same with nothing to learn in these rows (their picture could not be read)."""
        labels = self.labels.clone()
        labels[list(rows)] = IGNORED
        return replace(self, labels=labels)


class Speller:
    """Captions as ids and labels, by the tokenizer and habits of one bridge.

    Args:
        tokenizer: a Hugging Face tokenizer with an EOS token; its padding options are not used.
        prefix: words before every caption, as in "A picture of"; they are no targets. The caption
            follows after a space, the way it is generated.
        limit: the most tokens of a caption; a longer one is cut and has no EOS to learn.
    """

    def __init__(self, tokenizer: Any, prefix: str | None = None, limit: int = 128) -> None:
        if tokenizer is None or tokenizer.eos_token_id is None:
            raise CapabilityError(
                "Captions end with the EOS token, and this model's tokenizer has none: set"
                " tokenizer.eos_token to the token that ends a text."
            )
        self.tokenizer, self.limit = tokenizer, limit
        self.eos = int(tokenizer.eos_token_id)
        self.prefix = follow(tokenizer, prefix or "")

    def __call__(self, captions: Sequence[str]) -> CaptionTokens:
        rows = [self._row(caption) for caption in captions]
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.eos)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return CaptionTokens(ids, self._labels(ids, mask), mask)

    def _labels(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Targets: the words up to the first EOS after the prefix; a cut caption has no EOS."""
        start = len(self.prefix)
        ends = (ids[:, start:] == self.eos).long()
        after = ends.cumsum(1) - ends > 0
        labels = ids.masked_fill(mask == 0, IGNORED)
        labels[:, start:][after] = IGNORED
        labels[:, :start] = IGNORED
        return labels

    def _row(self, caption: str) -> list[int]:
        caption = caption.strip()
        ids = follow(self.tokenizer, f" {caption}" if self.prefix else caption, self.prefix)
        cut = len(ids) > self.limit
        return self.prefix + (ids[: self.limit] if cut else [*ids, self.eos])


def sequence(
    lm: Any,
    soft: Float[Tensor, "batch patch d_model"],
    captions: CaptionTokens,
    bos: int | None = None,
) -> tuple[Float[Tensor, "batch pos d_model"], Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """What the language model reads: vectors, mask and labels [batch, pos], pictures first.

    Args:
        lm: a Hugging Face causal LM.
        soft: the projected pictures.
        captions: what follows them.
        bos: the id of a token to put before all, for a model that wants one (LiMBeR: none).
    """
    table = lm.get_input_embeddings()
    parts = [soft.to(table.weight.dtype), table(captions.ids)]
    if bos is not None:
        first = table(torch.full((len(soft), 1), bos, device=soft.device))
        parts = [first, *parts]
    vectors = torch.cat(parts, dim=1)
    before = vectors.shape[1] - captions.ids.shape[1]
    mask = F.pad(captions.mask, (before, 0), value=1)
    return vectors, mask, F.pad(captions.labels, (before, 0), value=IGNORED)


def loss_sum(
    lm: Any,
    soft: Float[Tensor, "batch patch d_model"],
    captions: CaptionTokens,
    bos: int | None = None,
) -> Float[Tensor, ""]:
    """- sum over targets of log p, in float32; divide by `count(captions)` for LiMBeR's mean.

    A sum, so that micro-batches and processes add up to exactly the mean over all their targets.
    """
    vectors, mask, _ = sequence(lm, soft, captions, bos)
    length = captions.ids.shape[1]
    positions = torch.arange(vectors.shape[1], device=vectors.device).expand(len(vectors), -1)
    options: dict[str, Any] = {"position_ids": positions, "logits_to_keep": length + 1}
    known = inspect.signature(lm.forward).parameters
    options = {name: value for name, value in options.items() if name in known}
    out = lm(inputs_embeds=vectors, attention_mask=mask, use_cache=False, **options)
    logits = out.logits[:, -length - 1 : -1].float()  # the one before each word speaks it
    return F.cross_entropy(
        logits.flatten(0, 1), captions.labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def count(captions: CaptionTokens) -> int:
    """The number of targets."""
    return int((captions.labels != IGNORED).sum())
