"""Pictures beside the positions of a prompt: the keys that cross-attention layers attend to.

The keys of all pictures of a prompt are concatenated; the `ImageReader` labels them. Prompts of a
batch that have fewer keys are padded on the left, as positions are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.image_reader import labels_of
from mmlens.values.errors import PromptError
from mmlens.values.labels import Label, Padding
from mmlens.values.prompt import PictureKeys, Prompt, SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

See = Callable[[Any, Any], list[torch.Tensor]]


def keys_of(model: HookedVLM, prompts: Sequence[Prompt], see: See) -> PictureKeys | None:
    """The keys of some prompts; None where none has a picture.

    Args:
        see: maps a model and prompts to the vectors of each picture, `mmlens.model.reading.see`.

    Raises:
        PromptError: some have pictures and others none, or the projection does not fit.
    """
    if not any(prompt.pictures for prompt in prompts):
        return None
    if not all(prompt.pictures for prompt in prompts):
        raise PromptError(
            f"Some of these prompts have pictures and others none, which {model.name!r} cannot read"
            " in one batch: give them apart."
        )
    fresh = iter(see(model, prompts))
    rows: list[tuple[torch.Tensor, tuple[Label, ...]]] = []
    for prompt in prompts:
        named = labels_of(model.image_reader, model.vision, prompt.pictures)
        vectors = torch.cat([next(fresh) for _ in named])
        rows.append((vectors, tuple(label for some in named for label in some)))
    return _padded(model, rows)


def _padded(
    model: HookedVLM, rows: Sequence[tuple[torch.Tensor, tuple[Label, ...]]]
) -> PictureKeys:
    """One batch of rows of different lengths."""
    width, like = max(len(labels) for _, labels in rows), model.lm.embed(torch.zeros(1).long())
    vectors, labels, there = [], [], []
    for one, named in rows:
        fitting(model, one, model.lm.crossing.d_key)
        pad = width - len(named)
        vectors.append(torch.nn.functional.pad(one.to(like), (0, 0, pad, 0)))
        labels.append((*(Padding(i) for i in range(pad)), *named))
        there.append(torch.arange(width, device=like.device) >= pad)
    keys = PictureKeys(torch.stack(vectors), torch.stack(there), tuple(labels))
    _check_mask(model, keys)
    return keys


def _check_mask(model: HookedVLM, keys: PictureKeys) -> None:
    """Refuse masked keys where the language model attends to them all the same."""
    if not model.lm.crossing.masks and not bool(keys.mask.all()):
        counts = ", ".join(str(int(n)) for n in keys.mask.sum(1))
        raise PromptError(
            f"The pictures of these prompts have {counts} keys, and the language model of"
            f" {model.name!r} attends to padding among keys whatever their mask (a newer"
            " transformers may mend it): give the prompts one by one."
        )


def fitting(model: HookedVLM, vectors: torch.Tensor, size: int) -> None:
    """Refuse a projection whose vectors the language model cannot read.

    Args:
        size: the length of the vectors that it reads.
    """
    if vectors.shape[-1] != size:
        raise PromptError(
            f"The projection of {model.name!r} gives vectors of {vectors.shape[-1]} numbers, and"
            f" its language model reads {size}."
        )


def check_keys(model: HookedVLM, soft: SoftPrompt) -> None:
    """Refuse keys that do not fit their prompt or the model.

    Raises:
        PromptError: they do not fit.
    """
    keys = soft.picture_keys
    if keys is None:
        return
    if model.lm.crossing is None:
        raise PromptError(
            f"This soft prompt has its pictures beside its positions, and {model.name!r} has no"
            " cross-attention that could read them: give it the Prompt."
        )
    shape, wide = tuple(keys.vectors.shape), model.lm.crossing.d_key
    rows, width = (len(soft), len(keys.labels[0])) if keys.labels else (0, 0)
    if shape != (rows, width, wide) or [len(row) for row in keys.labels] != [width] * len(soft):
        raise PromptError(
            f"The picture keys {shape} of this soft prompt do not fit it: {model.name!r} takes"
            f" [batch, key, {wide}] and a label per key, for {len(soft)} prompts."
        )
    _check_mask(model, keys)
