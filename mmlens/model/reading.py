"""From prompts to soft prompts: pictures through vision and projection, words by the tokenizer.

`model.prompt_reader` gives the ids and labels of a prompt.
Shorter prompts of a batch are padded on the left,
so that the last position of every row is the position that predicts the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from mmlens.model.context_length import check_room
from mmlens.model.image_reader import labels_of, seen
from mmlens.model.picture_keys import check_keys, fitting, keys_of
from mmlens.model.prompt_reader import refuse_placeholder
from mmlens.model.prompt_tokens import PromptTokens
from mmlens.model.prompts_from_ids import known, read_ids, read_tokens
from mmlens.towers.language.tokenization import ids_after
from mmlens.values.arguments import text as text_of
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.labels import Label, Padding, Patch
from mmlens.values.prompt import IMAGE_TOKEN, Prompt, SoftPrompt
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

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
    """The soft prompt of an input, which the language model receives.

    A SoftPrompt (or the ids of one) is used as it is, unless the model has edits or hooks on the
    vision encoder or the projection: then its pictures are read again.

    Raises:
        PromptError: an empty prompt, a placeholder without its picture, ids of the wrong shape, or
            more positions than the model has.
    """
    soft = _masked(_soft(model, input, mask, prepend_bos), mask)
    check_room(model, soft)
    return soft


def _soft(
    model: HookedVLM, input: Any, mask: torch.Tensor | None, prepend_bos: bool | None
) -> SoftPrompt:
    if isinstance(input, PromptTokens) and input.soft is not None:
        return _again(model, read_tokens(model, input))
    if isinstance(input, SoftPrompt):
        return _again(model, _whole(model, input))
    if isinstance(input, torch.Tensor):
        floats = input.is_floating_point()
        return _from_vectors(model, input) if floats else read_ids(model, input, mask)
    prompts = prompts_of(input)
    if not prompts:
        if isinstance(input, (Image.Image, np.ndarray, Path)):
            raise PromptError(
                "A picture alone is no prompt of a model that reads words: write"
                " mm.Prompt(picture, 'A picture of')."
            )
        raise PromptError(
            f"A {type(input).__name__} is no prompt: give a Prompt, text, a list of these, or a"
            " tensor of token ids."
        )
    rows = [model.prompt_reader.read(model, prompt, prepend_bos) for prompt in prompts]
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
    if not bool(read.all()) and not model.lm.padded.exact:
        raise CapabilityError(
            f"{model.name!r} reads a left-padded prompt otherwise than the prompt alone (measured:"
            f" {model.lm.padded}): give prompts of one length, or one at a time."
        )
    vectors = model.lm.embed(known(model, ids).clamp(min=0))
    if model.image_reader.crosses:
        keys = keys_of(model, prompts, see)
        return SoftPrompt(vectors, ids, read, tuple(labels), prompts, keys)
    if any(prompt.pictures for prompt in prompts):
        soft_vectors = torch.cat(see(model, prompts))
        vectors, deep = _entered(model, soft_vectors, vectors, ids == IMAGE_TOKEN)
        return SoftPrompt(vectors, ids, read, tuple(labels), prompts, deep=deep)
    return SoftPrompt(vectors, ids, read, tuple(labels), prompts)


def _entered(
    model: HookedVLM, seen: torch.Tensor, vectors: torch.Tensor, where: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The vectors of a prompt with its pictures, and what these add behind layers.

    Args:
        seen: Float[picture pos, (1 + layer) * d_model], in order; the embedding's part comes first.
        vectors: Float[batch, pos, d_model]. where: Bool[batch, pos], the pictures' positions.
    """
    layers = 0 if model.lm.deepstack is None else model.lm.deepstack.n
    wide = vectors.shape[-1]
    fitting(model, seen, (1 + layers) * wide)
    here = where.unsqueeze(-1)
    own = vectors.masked_scatter(here, seen[:, :wide].to(vectors))
    if not layers:
        return own, None
    deep = vectors.new_zeros(*vectors.shape[:2], layers * wide)
    return own, deep.masked_scatter(here, seen[:, wide:].to(vectors)).unflatten(-1, (layers, wide))


def _masked(soft: SoftPrompt, mask: torch.Tensor | None) -> SoftPrompt:
    """The prompt with the caller's attention mask on top of its own."""
    if mask is None:
        return soft
    if mask.shape != soft.mask.shape:
        raise PromptError(
            f"An attention mask of shape {tuple(mask.shape)} does not fit this prompt:"
            f" {tuple(soft.mask.shape)} (batch, pos)."
        )
    if not bool(mask.bool().any(-1).all()):
        raise PromptError("This attention mask hides a whole prompt: show at least one position.")
    return replace(soft, mask=soft.mask & mask.bool().to(soft.mask.device))


def see(model: HookedVLM, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """Per picture of all prompts the vectors Float[pos, d_model], with hooks and edits."""
    vision, projection = model.vision, model.projection
    if vision is None or projection is None:
        raise PromptError(f"{model.name!r} has no vision encoder: give it text, or load a bridge.")
    first = next(iter(vision.parameters()))
    reader = model.image_reader.beside(model.prompt_reader, prompts)

    def project(pixels: torch.Tensor) -> torch.Tensor:
        features = vision(pixels.to(first.device).to(first.dtype))
        weight = next(iter(projection.parameters()), features)
        read = pixels.shape[-2:]
        return model.hook_projection(reader.project(projection, features.to(weight), vision, read))

    return seen(reader, vision, [p.pictures for p in prompts], project, model.watches_vision)


def _watched(model: HookedVLM) -> bool:
    """Whether hooks or edits act before the language model."""
    return any(not edit.site.in_lm for edit in model.edits) or model.watches_vision


def picture_rows(
    model: HookedVLM, prompts: Sequence[Prompt], site: Site, layer: int | None = None
) -> Rows:
    """The label of each position of a site in pictures, one row per picture or crop of it."""
    tower = model.towers[site.tower]
    return tuple(
        model.image_reader.rows(tower, site, layer, picture, image, crop)
        for prompt in prompts
        for image, picture in enumerate(prompt.pictures)
        for crop in range(model.image_reader.count(model.vision, picture, len(prompt.pictures)))
    )


def going_on(model: HookedVLM, soft: SoftPrompt, text: str, name: str = "text") -> list[int]:
    """The ids of a text that continues a prompt; error messages call it `name`."""
    text_of(text, name)
    refuse_placeholder(model, text, pictures=soft.has_pictures)
    ids = soft.ids[0].masked_fill(~soft.mask[0], -1).tolist()
    start = max((i + 1 for i, token in enumerate(ids) if token < 0), default=0)
    return ids_after(model.lm, text, ids[start:])


def _again(model: HookedVLM, soft: SoftPrompt) -> SoftPrompt:
    if not _watched(model) or not soft.has_pictures:
        return soft
    if not soft.prompts:
        raise CapabilityError(
            "This soft prompt was made by hand, so the vision encoder and projection do not run and"
            " their hooks and edits would never act: give the Prompt with its picture instead."
        )
    if soft.picture_keys is not None:
        return replace(soft, picture_keys=keys_of(model, soft.prompts, see))
    fresh = iter(see(model, soft.prompts))
    where, new = torch.zeros_like(soft.mask), []
    for row, (labels, prompt) in enumerate(zip(soft.labels, soft.prompts, strict=True)):
        known: dict[Label, torch.Tensor] = {}
        for there in labels_of(model.image_reader, model.vision, prompt.pictures):
            known |= dict(zip(there, next(fresh), strict=True))
        places = [at for at, label in enumerate(labels) if label in known]
        new += [known[labels[at]] for at in places]
        where[row, torch.tensor(places)] = True
    vectors, deep = _entered(model, torch.stack(new), soft.vectors, where)
    return replace(soft, vectors=vectors, deep=deep)


def _whole(model: HookedVLM, soft: SoftPrompt) -> SoftPrompt:
    """A soft prompt whose parts fit each other and the model, or a PromptError."""
    batch, pos = soft.ids.shape if soft.ids.ndim == 2 else (0, 0)
    wide = model.lm.embed(torch.zeros(1, dtype=torch.long)).shape[-1]
    if (
        tuple(soft.vectors.shape) != (batch, pos, wide)
        or tuple(soft.mask.shape) != (batch, pos)
        or [len(row) for row in soft.labels] != [pos] * batch
    ):
        raise PromptError(
            f"This soft prompt does not fit {model.name!r}: vectors {tuple(soft.vectors.shape)},"
            f" ids {tuple(soft.ids.shape)}, mask {tuple(soft.mask.shape)} and"
            f" {[len(row) for row in soft.labels]} labels, where it takes [batch, pos, {wide}],"
            " [batch, pos] twice and a label per position."
        )
    if soft.deep is not None and (
        model.lm.deepstack is None or soft.deep.shape != (batch, pos, model.lm.deepstack.n, wide)
    ):
        raise PromptError(
            f"This soft prompt adds its pictures again behind {soft.deep.shape[2]} layers, which"
            f" does not fit {model.name!r}: give it the Prompt."
        )
    known(model, soft.ids)
    check_keys(model, soft)
    return soft


def _from_vectors(model: HookedVLM, input: torch.Tensor) -> SoftPrompt:
    if input.ndim != 3 or input.shape[-1] != model.lm.d_embed or not input.numel():
        raise PromptError(
            f"Vectors of shape {tuple(input.shape)} are no soft prompt:"
            f" [batch, pos, {model.lm.d_embed}]. Token ids are whole numbers."
        )
    ids = torch.full(input.shape[:2], IMAGE_TOKEN, device=input.device)
    labels = tuple(tuple(Patch(0, i) for i in range(input.shape[1])) for _ in range(len(input)))
    return SoftPrompt(input, ids, torch.ones_like(ids, dtype=torch.bool), labels)
