"""The step of a denoising loop that is being computed: what hooks and edits of a denoiser ask.

A diffusion model runs its denoiser once a step. It is kept in a `ContextVar`, as the prompt of a
language model is (`mmlens.runtime.run`); where a step is computed again for its gradient, in a
thread of torch's own too, the loop stands at that step again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

PROMPT, NEGATIVE = "prompt", "negative"
"""The branches of classifier-free guidance: what is asked for, and what it is led away from."""


@dataclass
class Loop:
    """One denoising loop.

    Attributes:
        prompts: how many prompts are read at once; with guidance the denoiser reads as many
            negative ones in front of them.
        recompute: whether the activations of a step are computed again in the backward pass.
        count: how many steps there are.
        step: the step being computed; before the first one -1.
    """

    prompts: int
    recompute: bool = False
    count: Callable[[], int] = field(default=lambda: 0)
    step: int = -1

    def branches(self, rows: int) -> dict[str, slice]:
        """The rows of a batch by branch; all are the prompt's where there is no guidance."""
        if rows == self.prompts:
            return {PROMPT: slice(0, rows)}
        return {NEGATIVE: slice(0, rows // 2), PROMPT: slice(rows // 2, rows)}

    @contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Within this context the loop stands at another step."""
        before, self.step = self.step, step
        try:
            yield
        finally:
            self.step = before


_now: ContextVar[Loop | None] = ContextVar("mmlens_loop", default=None)


def loop_now() -> Loop | None:
    """The loop of this thread, or None outside of one."""
    return _now.get()


@contextmanager
def looping(loop: Loop) -> Iterator[Any]:
    """Within this context the denoiser belongs to this loop."""
    token = _now.set(loop)
    try:
        yield loop
    finally:
        _now.reset(token)
