"""Activations as they come: pictures in a shuffled order, their rows shuffled in a buffer.

    stream = ActivationStream(model, samples, "blocks.3.hook_resid_post", pos=Patch, ...)
    rows = stream.next(1024)                    # Float[1024, d]

A buffer holds the rows of `buffer` pictures, shuffled; when fewer than a batch are left, the rest
is put among those of the next pictures. The order of pictures in an epoch and of the rows of a
buffer are functions of (seed, number), and `state` says where the stream is, so that a training
goes on to the bit: the rest that was carried over is kept in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.datasets.sample import Samples
from mmlens.methods.activations import activations
from mmlens.runtime.seeding import seed_of
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


class ActivationStream:
    """Rows of activations at one hook, without end.

    Args:
        samples: the pictures.
        at: a hook name of one layer.
        pos: the positions whose rows are taken, as in `Scores.sel`.
        prompt: words behind each picture.
        buffer: pictures whose rows are shuffled together; where these are all, they are read once.
        batch: pictures that the model reads side by side.
    """

    def __init__(
        self,
        model: HookedModel,
        samples: Samples,
        at: str,
        *,
        pos: Any,
        prompt: str,
        buffer: int,
        batch: int,
        seed: int,
    ) -> None:
        self.model, self.samples, self.at = model, samples, at
        self.pos, self.prompt, self.batch, self.seed = pos, prompt, batch, seed
        self.buffer = min(buffer, len(samples))
        self.chunk, self.offset = 0, 0
        self.rows: Tensor | None = None
        self.rest: Tensor | None = None
        self.every: Tensor | None = None

    def next(self, n: int) -> Float[Tensor, "row d"]:
        """The next `n` rows."""
        rows = self._filled() if self.rows is None else self.rows
        while self.offset + n > len(rows):
            self.rest, self.offset = rows[self.offset :].clone(), 0
            self.chunk += 1
            rows = self._filled()
        self.offset += n
        return rows[self.offset - n : self.offset]

    def state(self) -> dict[str, Any]:
        """Where the stream is."""
        return {"chunk": self.chunk, "offset": self.offset, "rest": self.rest}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from there; the buffer is read again."""
        self.chunk, self.offset, self.rest = state["chunk"], state["offset"], state["rest"]
        self.rows = None

    def _filled(self) -> Tensor:
        """The rows of this buffer: those of its pictures and the rest of the one before."""
        where = (self.at, self.pos, self.prompt, self.batch)
        if self.buffer == len(self.samples):
            if self.every is None:
                self.every = rows_of(self.model, self.samples, range(self.buffer), *where)
            fresh = self.every
        else:
            fresh = rows_of(self.model, self.samples, self._pictures(), *where)
        rows = fresh if self.rest is None else torch.cat([self.rest.to(fresh), fresh])
        draw = torch.Generator().manual_seed(seed_of(self.seed, f"rows {self.chunk}"))
        self.rows = rows[torch.randperm(len(rows), generator=draw).to(rows.device)]
        return self.rows

    def _pictures(self) -> list[int]:
        """The numbers of the pictures of this buffer; an epoch ends within a buffer."""
        first, n, found = self.chunk * self.buffer, len(self.samples), []
        for epoch in range(first // n, (first + self.buffer - 1) // n + 1):
            draw = torch.Generator().manual_seed(seed_of(self.seed, f"epoch {epoch}"))
            order = torch.randperm(n, generator=draw).tolist()
            here = range(max(0, first - epoch * n), min(n, first + self.buffer - epoch * n))
            found += [order[i] for i in here]
        return found


def rows_of(
    model: HookedModel,
    samples: Samples,
    numbers: Sequence[int],
    at: str,
    pos: Any,
    prompt: str,
    batch: int,
) -> Float[Tensor, "row d"]:
    """The activations of these pictures at some positions, one row after the other."""
    found = []
    for start in range(0, len(numbers), batch):
        pictures = [samples[i].image for i in numbers[start : start + batch]]
        prompts = [Prompt(one, prompt) if prompt else Prompt(one) for one in pictures]
        values = activations(model, prompts, at, **({} if pos is None else {"pos": pos})).values
        wide = values.shape[-1] if values.ndim < 4 else values.shape[-1] * values.shape[-2]
        found.append(values.reshape(-1, wide).float())
    return torch.cat(found)
