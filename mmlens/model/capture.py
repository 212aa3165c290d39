"""What stands at hook points while a model runs: `with capture(model, names) as kept:`.

    with capture(model, names, lambda x: x[0].norm(dim=-1)) as norms:
        model.run(prompt)
    norms["blocks.3.hook_resid_post"]           # only the reduction was kept

Methods keep a reduction where one will do, so that no full cache is ever held.
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
    """Within this context every run leaves what stood at these points, the last run's.

    Args:
        names: hook names.
        reduce: a function of what stands there; by default it is kept as it is, with its graph.
    """
    kept: dict[str, Any] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = tensor if reduce is None else reduce(tensor)

    with model.hooks([(name, keep) for name in names]):
        yield kept
