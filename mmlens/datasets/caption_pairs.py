"""Captioned pictures, wherever they lie: `CaptionPair(source, captions, key)`.

`CaptionPairs` can be gone through again and again, each time in an order drawn from a seed. Two
kinds: `Listed` knows all its pairs and shuffles them; `Streamed` (tar shards, a dataset that comes
over the network) only ever sees the next one. A pair opens its picture when it is asked for it.

A picture that cannot be read is refused with its name. With `skip_bad=True` it is counted in
`CaptionPairs.bad` and the run reports it; it never disappears silently.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmlens.values.errors import MMLensError
from mmlens.values.pictures import open_named
from mmlens.values.placeless import placeless


class DataError(MMLensError, ValueError):
    """Captioned pictures cannot be found, or a picture or caption of them cannot be used."""


@dataclass(frozen=True, slots=True)
class CaptionPair:
    """A picture and what may be said of it.

    Attributes:
        source: what `open_picture` takes: a path, the bytes of a file, a PIL image, an array.
        captions: one or several.
        key: what a sentence about it calls it, the file's name.
    """

    source: Any
    captions: tuple[str, ...]
    key: str

    @property
    def picture(self) -> Image.Image:
        """The picture, read now.

        Raises:
            PictureError: it cannot be read; the sentence names it.
        """
        return open_named(self.source, self.key)


class CaptionPairs:
    """Captioned pictures to go through, in their own order or in one drawn from a seed."""

    holds = "pixels"
    """What `tensor` gives: "pixels" [3, h, w], or "features" [patch, d_vision] from a cache."""

    def __init__(self, name: str, skip_bad: bool = False) -> None:
        self.name, self.skip_bad = name, skip_bad
        self.bad: dict[str, str] = {}

    def __iter__(self) -> Iterator[CaptionPair]:
        raise NotImplementedError

    def shuffled(self, seed: int) -> Iterator[CaptionPair]:
        """All pairs once, in the order of this seed."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Changes when the pictures do; a cache and a checkpoint remember it."""
        raise NotImplementedError

    def stream(self, seed: int, start: int = 0) -> Iterator[CaptionPair]:
        """Pairs without end, epoch after epoch, from the `start`-th on: the data of a training."""
        for epoch in itertools.count():
            some = False
            for pair in self.shuffled(seed + epoch):
                some = True
                if start > 0:
                    start -= 1
                else:
                    yield pair
            if not some:
                raise DataError(f"There are no captioned pictures in {self.name}.")

    def tensor(self, pair: CaptionPair, pixels: Callable[[Any], Tensor]) -> Tensor:
        """What the model is fed with: Float[3, h, w] by the encoder's own preprocessing."""
        return pixels(pair.picture)

    def reject(self, key: str, why: str) -> None:
        """Refuse a pair, or with `skip_bad` remember it and go on."""
        if not self.skip_bad:
            raise DataError(f"{why} (skip_bad=True leaves such out and counts them.)")
        self.bad[placeless(key)] = placeless(why)


class Listed(CaptionPairs):
    """Pairs that are all known: a folder, a table, a list."""

    def __init__(
        self, pairs: Sequence[CaptionPair], name: str = "this list", skip_bad: bool = False
    ) -> None:
        super().__init__(name, skip_bad)
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> CaptionPair:
        return self._pairs[index]

    def __iter__(self) -> Iterator[CaptionPair]:
        return (self[i] for i in range(len(self)))

    def shuffled(self, seed: int) -> Iterator[CaptionPair]:
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return (self[i] for i in order.tolist())

    def stream(self, seed: int, start: int = 0) -> Iterator[CaptionPair]:
        """As in `CaptionPairs`; epochs that are over are not gone through again."""
        over = start // len(self) if len(self) else 0
        return super().stream(seed + over, start - over * len(self))

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for pair in self._pairs:
            digest.update(f"{pair.key}\n".encode())
            digest.update(_fingerprint(pair.source))
        return digest.hexdigest()


class Streamed(CaptionPairs):
    """Pairs that come one after the other; the order is shuffled as well as the source can."""

    def __init__(
        self,
        read: Callable[[int | None], Iterable[CaptionPair | tuple[str, str]]],
        fingerprint: str,
        name: str,
        skip_bad: bool = False,
    ) -> None:
        """`read(seed)` begins a pass (None: in order); what is no pair is (key, why it is bad)."""
        super().__init__(name, skip_bad)
        self._read, self._fingerprint = read, fingerprint

    def __iter__(self) -> Iterator[CaptionPair]:
        return self._good(None)

    def shuffled(self, seed: int) -> Iterator[CaptionPair]:
        return self._good(seed)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def _good(self, seed: int | None) -> Iterator[CaptionPair]:
        for pair in self._read(seed):
            if isinstance(pair, CaptionPair):
                yield pair
            else:
                self.reject(*pair)


def captions_in(value: Any) -> tuple[str, ...]:
    """The captions in a cell: a text, or a list of texts; empty ones do not count."""
    texts = [value] if isinstance(value, str) else list(value or [])
    return tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())


def _fingerprint(source: Any) -> bytes:
    """Of a file its size and date (reading millions would take hours), else of the bytes."""
    if isinstance(source, (str, Path)):
        try:
            status = Path(source).stat()
        except OSError:
            return b"missing"
        return f"{status.st_size} {status.st_mtime_ns}\n".encode()
    if isinstance(source, Image.Image):
        return hashlib.sha256(f"{source.mode} {source.size}".encode() + source.tobytes()).digest()
    content = source if isinstance(source, bytes) else getattr(source, "tobytes", bytes)()
    return hashlib.sha256(content).digest()
