"""Random numbers that depend on a seed, and that leave the caller's generator as it was."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, name: str) -> int:
    """A seed for `name`: the same in every process, for any order of names."""
    return zlib.crc32(f"{seed} {name}".encode())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context torch's CPU generator starts at `seed`; then its state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
