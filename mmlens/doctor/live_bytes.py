"""Bytes of tensors that are alive at once while code runs, on any device: also on none ("meta").

A dispatch mode sees every tensor that an operation makes; a storage counts from then until it is
freed. Operations on the meta device compute shapes alone, so that a model of any size can be
counted without its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts inside `with`; what was there before (weights, inputs) is not counted.

    Attributes:
        peak: the most bytes that were alive at once.
    """

    def __init__(self, *before: torch.Tensor) -> None:
        super().__init__()
        self.known = {StorageWeakRef(one.untyped_storage()).cdata for one in before}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.total = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.layout is torch.strided:
                self._count(one.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        held = StorageWeakRef(storage)
        if held.cdata in self.known or held.cdata in self.alive:
            return
        self.alive[held.cdata] = held, storage.nbytes()
        self.total += storage.nbytes()
        if self.total > self.peak:  # only then does it matter what was freed
            self.alive = {key: one for key, one in self.alive.items() if not one[0].expired()}
            self.total = sum(size for _, size in self.alive.values())
            self.peak = max(self.peak, self.total)
