"""From prompts to soft prompts: pictures through vision and projection, words by the tokenizer.

The one place where a position gets its label. Shorter prompts of a batch are padded on the left,
so that the last position of every row is the one that speaks next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mmlens.checkpoints import keeps_positions
from mmlens.errors import CapabilityError, PromptError
from mmlens.prompt import IMAGE_TOKEN, Label, Padding, Patch, Prompt, SoftPrompt, Token
from mmlens.tokens import PromptTokens
from mmlens.words import ids_of, word

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.model import HookedVLM

Rows = tuple[tuple[Label, ...], ...]


def prompts_of(input: Any) -> tuple[Prompt, ...]:
    """The prompts in an input, or none when it is made of ids or vectors."""
    if isinstance(input, PromptTokens) and input.soft is not None:
        return input.soft.prompts
    if isinstance(input, SoftPrompt):
        return input.prompts
    if isinstance(input, (str, Prompt)):
        return (input if isinstance(input, Prompt) else Prompt(input),)
    if (
        isinstance(input, (list, tuple))
        and input
        and all(isinstance(p, (str, Prompt)) for p in input)
    ):
        return tuple(p if isinstance(p, Prompt) else Prompt(p) for p in input)
    return ()


def embed(
    model: HookedVLM,
    input: Any,
    *,
    mask: torch.Tensor | None = None,
    prepend_bos: bool | None = None,
) -> SoftPrompt:
    """What `input` is to the language model.

    A SoftPrompt (or the ids of one) is taken as it stands, unless the model edits or hooks the way
    from pixels to vectors: then its pictures are read again.

    Raises:
        PromptError: nothing in it, a placeholder without its picture, or ids of the wrong shape.
    """
    soft = input.soft if isinstance(input, PromptTokens) else input
    if isinstance(soft, SoftPrompt):
        return _masked(_again(model, soft), mask)
    if isinstance(input, torch.Tensor):
        return _from_tensor(model, input, mask)
    prompts = prompts_of(input)
    if not prompts:
        raise PromptError(
            f"A {type(input).__name__} is no prompt: give a Prompt, text, a list of these, or token"
            " ids."
        )
    bos = model.prepend_bos if prepend_bos is None else prepend_bos
    rows = [_read(model, prompt, bos) for prompt in prompts]
    length = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long, device=model.lm.device)
    read = torch.zeros(len(rows), length, dtype=torch.bool, device=model.lm.device)
    labels: list[tuple[Label, ...]] = []
    for row, (parts, target, keep) in enumerate(zip(rows, ids, read, strict=True)):
        pad = length - len(parts)
        target[pad:] = torch.tensor([token for token, _ in parts], device=target.device)
        keep[pad:] = True
        labels.append(
            tuple(Padding(i) for i in range(pad)) + tuple(label for _, label in rows[row])
        )
    vectors = model.lm.embed(ids.clamp(min=0))
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    if pictures:
        soft_vectors = project(model, pictures).flatten(0, 1)
        vectors = vectors.masked_scatter(
            (ids == IMAGE_TOKEN).unsqueeze(-1), soft_vectors.to(vectors)
        )
    return _masked(SoftPrompt(vectors, ids, read, tuple(labels), prompts), mask)


def _masked(soft: SoftPrompt, mask: torch.Tensor | None) -> SoftPrompt:
    """The prompt with the caller's attention mask on top of its own."""
    if mask is None:
        return soft
    if mask.shape != soft.mask.shape:
        raise PromptError(
            f"An attention mask of shape {tuple(mask.shape)} does not fit this prompt:"
            f" {tuple(soft.mask.shape)} (batch, pos)."
        )
    return replace(soft, mask=soft.mask & mask.bool().to(soft.mask.device))


def project(model: HookedVLM, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Float[picture, patch, d_model]: pictures through vision and projection, with their hooks."""
    if model.vision is None or model.projection is None:
        raise PromptError(f"{model.name!r} has no vision encoder: give it text, or load a bridge.")
    device = next(iter(model.vision.parameters())).device
    pixels = torch.stack([model.vision.preprocess(picture) for picture in pictures]).to(device)
    features = model.vision(pixels.to(next(iter(model.vision.parameters())).dtype))
    weight = next(iter(model.projection.parameters()), features)
    out = model.projection(features.to(weight))
    keeps_positions(model.projection, out, features.shape[1])
    return model.hook_projection(out)


def picture_labels(model: HookedVLM, prompts: Sequence[Prompt], with_prefix: bool = False) -> Rows:
    """Per picture of all prompts, the labels of its positions in the vision tower."""
    rows, cols = model.vision.grid
    prefix = tuple(Token("[CLS]", i) for i in range(model.vision.n_prefix)) if with_prefix else ()
    squares = [(row, col) for row in range(rows) for col in range(cols)]
    return tuple(
        prefix + tuple(Patch(row, col, image) for row, col in squares)
        for prompt in prompts
        for image in range(len(prompt.pictures))
    )


def _read(model: HookedVLM, prompt: Prompt, bos: bool) -> list[tuple[int, Label]]:
    """Ids and labels of one prompt."""
    parts: list[tuple[int, Label]] = []
    image = 0
    if bos and model.tokenizer is not None and model.tokenizer.bos_token_id is not None:
        parts.append((model.tokenizer.bos_token_id, Token(model.tokenizer.bos_token, 0)))
    for part in prompt.parts:
        if isinstance(part, str):
            for token in ids_of(model.lm, part):
                parts.append((token, Token(word(model.lm, token), len(parts))))
        else:
            if model.vision is None:
                raise PromptError(
                    f"{model.name!r} has no vision encoder: give it text, or load a bridge."
                )
            rows, cols = model.vision.grid
            parts += [(IMAGE_TOKEN, Patch(r, c, image)) for r in range(rows) for c in range(cols)]
            image += 1
    return parts


def _again(model: HookedVLM, soft: SoftPrompt) -> SoftPrompt:
    touched = any(edit.site.part != "lm" for edit in model.edits) or model.watches_vision
    if not touched or not bool(soft.is_picture.any()):
        return soft
    if not soft.prompts:
        raise CapabilityError(
            "This soft prompt was made by hand, so the vision encoder and projection do not run and"
            " their hooks and edits would never act: give the Prompt with its picture instead."
        )
    pictures = [picture for prompt in soft.prompts for picture in prompt.pictures]
    fresh = project(model, pictures).flatten(0, 1).to(soft.vectors)
    vectors = soft.vectors.masked_scatter(soft.is_picture.unsqueeze(-1), fresh)
    return replace(soft, vectors=vectors)


def _from_tensor(model: HookedVLM, input: torch.Tensor, mask: torch.Tensor | None) -> SoftPrompt:
    if input.is_floating_point():
        if input.ndim != 3 or input.shape[-1] != model.cfg.d_model:
            raise PromptError(
                f"Vectors of shape {tuple(input.shape)} are no soft prompt:"
                f" [batch, pos, {model.cfg.d_model}]."
            )
        ids = torch.full(input.shape[:2], IMAGE_TOKEN, device=input.device)
        labels = tuple(tuple(Patch(0, i) for i in range(input.shape[1])) for _ in range(len(input)))
        return _masked(SoftPrompt(input, ids, torch.ones_like(ids, dtype=torch.bool), labels), mask)
    ids = input.as_subclass(torch.Tensor).long().to(model.lm.device)
    ids = ids.unsqueeze(0) if ids.ndim == 1 else ids
    if bool((ids < 0).any()):
        raise PromptError(
            "These ids hold image tokens (-1) whose picture was lost on the way: give the Prompt,"
            " or the tensor that model.to_tokens(prompt) returned, unchanged."
        )
    if ids.numel() == 0:
        raise PromptError("There are no token ids in this prompt: give at least one.")
    keep = torch.ones_like(ids, dtype=torch.bool)
    labels = tuple(
        tuple(Token(word(model.lm, token), i) for i, token in enumerate(row))
        for row in ids.tolist()
    )
    return _masked(SoftPrompt(model.lm.embed(ids), ids, keep, labels), mask)


def loss(logits: torch.Tensor, soft: SoftPrompt, return_type: str, per_token: bool) -> Any:
    """Cross entropy of the next token, over positions whose next one is a word.

    Returns:
        `"loss"`: a number (or Float[batch, pos - 1] with 0 where there is no target);
        `"both"`: (logits, loss).
    """
    target = soft.ids[:, 1:].to(logits.device)
    counted = (
        (target >= 0) & soft.mask[:, 1:].to(logits.device) & soft.mask[:, :-1].to(logits.device)
    ).float()
    log_probs = logits[:, :-1].float().log_softmax(-1)
    each = -log_probs.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1) * counted
    value = each if per_token else each.sum() / counted.sum().clamp(min=1)
    return (logits, value) if return_type == "both" else value
