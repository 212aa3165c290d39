"""Prompts given as token ids: checked, and embedded when they are used.

Ids that carry pictures (`prompt_tokens`) have -1 at the patches; every other id is a token of the
model that reads it, also where it was overwritten.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.prompt_tokens import PromptTokens, plain
from mmlens.towers.language.tokenization import text, word
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.labels import Label, Padding, Token
from mmlens.values.prompt import IMAGE_TOKEN, Prompt, SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


def tokens_of(model: HookedVLM, soft: SoftPrompt) -> torch.Tensor:
    """The ids Int[batch, pos] of a soft prompt of this model, which carry its pictures.

    Raises:
        CapabilityError: its pictures are no positions, so no id stands for them.
    """
    if soft.picture_keys is not None:
        raise CapabilityError(
            f"The pictures of {model.name!r} are keys of cross-attention and no positions, so token"
            " ids cannot carry them: give the Prompt, or what model.read(prompt) returns."
        )
    return PromptTokens.of(soft, _parts(model)) if bool(soft.is_picture.any()) else soft.ids


def _parts(model: HookedVLM) -> tuple[Any, ...]:
    """What ids with pictures depend on: the encoder, projection and language model."""
    return model.vision, model.projection, model.lm


def known(model: HookedVLM, ids: torch.Tensor) -> torch.Tensor:
    """Ids that have a row in the model's embedding (or -1).

    Raises:
        PromptError: one that has none.
    """
    rows = int(model.root.W_E.shape[0])
    wrong = ids[(ids >= rows) | (ids < IMAGE_TOKEN)]
    if wrong.numel():
        raise PromptError(
            f"The token id {int(wrong[0])} has no embedding: {model.name!r} has ids from 0 to"
            f" {rows - 1}."
        )
    return ids


def read_ids(model: HookedVLM, input: torch.Tensor, mask: torch.Tensor | None) -> SoftPrompt:
    """Words as ids Int[batch, pos] or Int[pos]; what a mask hides on the left is padding.

    Raises:
        PromptError: not whole numbers of that shape, an unknown id, or an image token whose picture
            was lost.
    """
    if isinstance(input, PromptTokens):
        raise PromptError(
            "These ids were made from ids with pictures by an operation that lost the pictures"
            " (arithmetic, or a reshape): give the Prompt, or what model.to_tokens(prompt) gave,"
            " with words put in their places."
        )
    if input.dtype == torch.bool or input.is_complex() or input.ndim not in (1, 2):
        raise PromptError(
            f"A tensor of {str(input.dtype).removeprefix('torch.')} of shape {tuple(input.shape)}"
            " holds no token ids: give whole numbers, [batch, pos] or [pos]."
        )
    ids = input.long().to(model.lm.device)
    ids = ids.unsqueeze(0) if ids.ndim == 1 else ids
    if ids.numel() == 0:
        raise PromptError("There are no token ids in this prompt: give at least one.")
    if bool((ids == IMAGE_TOKEN).any()):
        raise PromptError(
            "These ids hold image tokens (-1) whose picture was lost on the way: give the Prompt,"
            " or the tensor that model.to_tokens(prompt) returned, unchanged."
        )
    vectors = model.lm.embed(known(model, ids))
    padded = _left_of(mask, ids)
    labels = tuple(
        tuple(
            Padding(i) if i < pad else Token(word(model.lm, token), i - pad)
            for i, token in enumerate(row)
        )
        for row, pad in zip(ids.tolist(), padded, strict=True)
    )
    return SoftPrompt(vectors, ids, torch.ones_like(ids, dtype=torch.bool), labels)


def _left_of(mask: torch.Tensor | None, ids: torch.Tensor) -> list[int]:
    """How many positions of each row a mask hides before the first that it shows."""
    if mask is None or mask.shape != ids.shape or not bool(mask.bool().any(-1).all()):
        return [0] * len(ids)
    return mask.long().argmax(-1).tolist()


def read_tokens(model: HookedVLM, tokens: PromptTokens) -> SoftPrompt:
    """The soft prompt of ids with pictures, its words read from the ids as they are now.

    Raises:
        PromptError: another model's, another shape, a picture where none was, or words in padding.
    """
    soft = tokens.soft
    assert soft is not None
    theirs = tokens.parts
    if theirs and any(a is not b for a, b in zip(theirs, _parts(model), strict=True)):
        raise PromptError(
            "These ids carry pictures as another model's projection gives them, and words by its"
            f" tokenizer: give {model.name!r} the Prompt, or what its own to_tokens(prompt) gives."
        )
    ids = plain(tokens).long()
    if ids.numel() != soft.ids.numel() or ids.ndim > 2:
        raise PromptError(
            f"Ids of shape {tuple(ids.shape)} no longer fit their pictures, which were put into"
            f" {tuple(soft.ids.shape)} (batch, pos)."
        )
    ids = ids.to(soft.ids.device).view(soft.ids.shape)
    new = ids != soft.ids
    if not bool(new.any()):
        return soft
    _check_places(soft, known(model, ids), new)
    with torch.no_grad():
        vectors = soft.vectors.masked_scatter(
            new.unsqueeze(-1), model.lm.embed(ids[new]).to(soft.vectors)
        )
    labels = [list(row) for row in soft.labels]
    prompts = list(soft.prompts)
    for row in new.any(-1).nonzero()[:, 0].tolist():
        before = sum(isinstance(label, Padding) for label in labels[row])
        for at in new[row].nonzero()[:, 0].tolist():
            labels[row][at] = Token(word(model.lm, int(ids[row, at])), at - before)
        if prompts:
            prompts[row] = _prompt(model, prompts[row], soft.labels[row], ids[row])
    return replace(
        soft,
        vectors=vectors,
        ids=ids,
        labels=tuple(map(tuple, labels)),
        prompts=tuple(prompts),
        deep=None if soft.deep is None else soft.deep * ~new[..., None, None],
    )


def _check_places(soft: SoftPrompt, ids: torch.Tensor, new: torch.Tensor) -> None:
    """Refuse pictures where none was and words where there is padding."""
    for row, at in (new & (ids == IMAGE_TOKEN)).nonzero().tolist():
        raise PromptError(
            f"Position {at} of prompt {row} became an image token (-1), but no picture was put"
            " there: write word ids, or give the Prompt with its picture."
        )
    for row, at in new.nonzero().tolist():
        if isinstance(soft.labels[row][at], Padding):
            raise PromptError(
                f"Position {at} of prompt {row} is padding, left of where the prompt begins, and a"
                " word was written there: count positions from the end in a batch, as in -1."
            )


def _prompt(
    model: HookedVLM, prompt: Prompt, labels: tuple[Label, ...], ids: torch.Tensor
) -> Prompt:
    """The prompt with its pictures, and the words decoded from the ids as they are now."""
    parts: list[Any] = []
    words: list[int] = []
    shown: list[int] = []

    def spell() -> None:
        if words:
            parts.append(text(model.lm, torch.tensor(words)))
            words.clear()

    for label, token in zip(labels, ids.tolist(), strict=True):
        image = getattr(label, "image", None)
        if image is not None and image not in shown:
            spell()
            parts.append(prompt.pictures[image])
            shown.append(image)
        if token >= 0 and not isinstance(label, Padding):
            words.append(token)
    spell()
    return Prompt(*parts, template=False)  # its words hold the template already
