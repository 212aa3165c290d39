"""Work in chunks that fit: on out-of-memory the size is halved, with a warning, and retried.

Results do not depend on the size of the chunks (`times`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.runtime.memory import free_memory

T = TypeVar("T")
ROWS = 32
"""The number of rows of each product in `times`."""


def in_chunks(n: int, size: int, work: Callable[[int, int], T]) -> Iterator[T]:
    """`work(start, stop)` over 0..n in pieces of `size`; halves the size when memory runs out.

    Raises:
        torch.OutOfMemoryError: a chunk of size 1 does not fit.
    """
    start, size = 0, max(1, size)
    while start < n:
        stop = min(n, start + size)
        try:
            done = work(start, stop)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if size == 1 or not _out_of_memory(error):
                raise
            size = max(1, size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(f"Out of memory: going on with pieces of {size}.", stacklevel=2)
            continue
        yield done
        start = stop


def fitting(bytes_each: float, device: torch.device, most: int = 256, share: float = 0.5) -> int:
    """How many items of `bytes_each` fit into a share of the free memory, 1 to `most`."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    return max(1, min(most, int(share * free / max(1.0, bytes_each))))


def times(rows: Float[Tensor, "row d"], table: Float[Tensor, "d n"]) -> Float[Tensor, "row n"]:
    """`rows @ table`, where each row's result does not depend on the other rows.

    The rounding of a matrix product depends on its shape, so a row alone and the same row among
    others differ in their last bits. Here every product has the same shape, padded with zeros.
    """
    n = -(-len(rows) // ROWS) * ROWS
    full = torch.cat([rows, rows.new_zeros(n - len(rows), rows.shape[1])])
    return torch.cat([part @ table for part in full.split(ROWS)])[: len(rows)]


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
