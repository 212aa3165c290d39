"""Capture activations at hook points while a model runs: `with capture(model, names) as kept:`.

    with capture(model, names, lambda x: x[0].norm(dim=-1)) as norms:
        model.run(prompt)
    norms["blocks.3.hook_resid_post"]           # only the reduction was kept

Methods keep a reduction where that suffices, so that no full cache is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@contextmanager
def capture(
    model: HookedModel,
    names: Iterable[str],
    reduce: Callable[[torch.Tensor], Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Within this context, keep the activations at these points, those of the last run.

    Args:
        names: hook names.
        reduce: a function of the activation; by default the activation is kept, with its graph.
    """
    kept: dict[str, Any] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = tensor if reduce is None else reduce(tensor)

    with model.hooks([(name, keep) for name in names]):
        yield kept
