"""The prompt being read, and up to which position: the one state of a forward pass.

A permanent hook on the embedding gets from `current()` the vectors that replace the patches and
records at which position this forward begins, so that edits keep their positions while a caption is
generated, with a KV cache (one position per step) or without (all positions). It is kept in a
`ContextVar`: every thread reads its own prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mmlens.values.prompt import SoftPrompt

_current: ContextVar[Run | None] = ContextVar("mmlens_run", default=None)


@dataclass
class Run:
    """One prompt that the language model is reading.

    Attributes:
        soft: the prompt.
        seen: how many positions have been read so far.
        start: at which position the forward pass now running begins.
        differentiable: whether a graph starts at the embedding when gradients are enabled.
        scale: the factor of the prompt's vectors at the hook on the embedding (`language.ends`).
        enters: at which position forward passes begin, when keys and values of those before it are
            cached (`mmlens.causal.prefix_reuse`).
    """

    soft: SoftPrompt
    differentiable: bool = True
    scale: float = 1.0
    seen: int = 0
    start: int = 0
    enters: int = 0

    def begins(self, width: int) -> int:
        """At which position a forward pass of `width` positions would begin now."""
        return self.enters if width > self.seen or self.enters else self.seen

    def advance(self, width: int) -> None:
        """Note that a forward pass of `width` positions begins."""
        self.start = self.begins(width)
        self.seen = self.start + width


def current() -> Run | None:
    """The run of this thread, or None outside of one."""
    return _current.get()


@contextmanager
def reading(soft: SoftPrompt, differentiable: bool = True, scale: float = 1.0) -> Iterator[Run]:
    """Within this context the language model reads `soft`."""
    run = Run(soft, differentiable, scale)
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


@contextmanager
def nothing_read() -> Iterator[None]:
    """Within this context no prompt is being read: for measurements within a run."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def inject(embedded: torch.Tensor, hook: Any = None) -> torch.Tensor:
    """The permanent hook on the embedding: replaces placeholders by patches.

    Args:
        embedded: Float[batch * beams, pos, d_model], the word embeddings.
    """
    run = current()
    if run is None:
        return embedded
    first = run.enters
    width, length = embedded.shape[1], run.soft.ids.shape[1] - first
    run.advance(width)
    if run.start == first and width >= length and bool(run.soft.is_picture.any()):
        beams = embedded.shape[0] // len(run.soft)
        pictures = run.soft.is_picture[:, first:]
        where = pictures.repeat_interleave(beams, 0).unsqueeze(-1).to(embedded.device)
        vectors = run.soft.vectors[:, first:].repeat_interleave(beams, 0).to(embedded)
        vectors = vectors if run.scale == 1.0 else vectors * run.scale
        head = torch.where(where, vectors, embedded[:, :length])
        embedded = torch.cat([head, embedded[:, length:]], dim=1) if width > length else head
    if run.differentiable and torch.is_grad_enabled() and not embedded.requires_grad:
        embedded = embedded.detach().requires_grad_()
    return embedded
