"""What a dual encoder reads: pixels of pictures, ids of texts, and the labels of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mmlens.model.provenance import described
from mmlens.values.labels import TEXT, Label
from mmlens.values.prompt import Prompt


@dataclass(frozen=True, eq=False)
class DualReading:
    """The input of a dual encoder: pictures, texts, or both.

    Attributes:
        pixels: Float[picture, 3, h, w], preprocessed; None without pictures.
        ids: Int[text, pos]; None without texts.
        mask: Bool[text, pos], False at padding, where the text encoder takes a mask.
        labels: per text, one label per position.
        prompts: what they were made from; empty where pixels or ids were given.
    """

    pixels: torch.Tensor | None = None
    ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    labels: tuple[tuple[Label, ...], ...] = ()
    prompts: tuple[Prompt, ...] = ()

    @property
    def n_pictures(self) -> int:
        """How many pictures there are."""
        return 0 if self.pixels is None else len(self.pixels)

    @property
    def n_texts(self) -> int:
        """How many texts there are."""
        return 0 if self.ids is None else len(self.ids)

    def __len__(self) -> int:
        return self.n_pictures or self.n_texts

    def copies(self, n: int, tower: str) -> DualReading:
        """What this tower reads `n` times, one copy beside the other."""
        if tower != TEXT:
            return replace(self, pixels=None if self.pixels is None else _times(self.pixels, n))
        mask = None if self.mask is None else _times(self.mask, n)
        ids = None if self.ids is None else _times(self.ids, n)
        return replace(self, ids=ids, mask=mask, labels=self.labels * n)

    def __str__(self) -> str:
        return str([part for prompt in self.prompts for part in described(prompt)])


def prompts_in(input: Any) -> tuple[Prompt, ...]:
    """The prompts in a picture, a text, a Prompt, or a list of these; none in tensors."""
    if isinstance(input, DualReading):
        return input.prompts
    if isinstance(input, torch.Tensor):
        return ()
    several: Sequence[Any] = input if isinstance(input, (list, tuple)) else [input]
    return tuple(one if isinstance(one, Prompt) else Prompt(one) for one in several)


def _times(rows: torch.Tensor, n: int) -> torch.Tensor:
    return rows.repeat(n, *[1] * (rows.ndim - 1))
