"""From pairs to batches, so that nothing is left to chance or to the number of processes.

The `n`-th picture of a training, its caption and its dropout are functions of (seed, n) alone. So a
training that was killed goes on with the same numbers, and several processes, each of which takes
its rows of every batch, see together what one would see; no random state has to be kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmlens.datasets.caption_pairs import CaptionPair, CaptionPairs, DataError
from mmlens.train.caption_loss import CaptionTokens, Speller
from mmlens.values.errors import PictureError
from mmlens.values.placeless import placeless


@dataclass
class Batch:
    """The rows of a batch that are this process's.

    Attributes:
        inputs: Float[row, 3, h, w] pixels or Float[row, patch, d_vision] features.
        captions: their tokens.
        seeds: per row, for its dropout.
        bad: key and sentence of pictures that could not be read; their rows have no targets.
    """

    inputs: Tensor
    captions: CaptionTokens
    seeds: list[int]
    bad: dict[str, str] = field(default_factory=dict)


@dataclass
class Feed(IterableDataset):
    """Batches without end (or one pass, in order), for one process.

    Args:
        pairs: where the pictures come from.
        pixels: the encoder's preprocessing.
        speller: captions to ids.
        batch_size: rows of a batch over all processes.
        seed: of order, captions and dropout; None is one pass in the data's own order with the
            first caption of each, for a held-out loss.
        start: how many pictures of the training are over.
        rank, world: this process among how many.
    """

    pairs: CaptionPairs
    pixels: Callable[[Any], Tensor]
    speller: Speller
    batch_size: int
    seed: int | None = 0
    start: int = 0
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, rows in enumerate(self._batches()):
            share = -(-len(rows) // self.world)
            rows = rows[self.rank * share : (self.rank + 1) * share]
            if number % workers == mine and rows:
                yield self._read(rows)

    def loader(self, workers: int = 0) -> DataLoader:
        """The same, read ahead by worker processes, in the same order."""
        return DataLoader(self, batch_size=None, num_workers=workers)

    def _batches(self) -> Iterator[list[tuple[int, CaptionPair]]]:
        seed = self.seed
        pairs = iter(self.pairs) if seed is None else self.pairs.stream(seed, self.start)
        numbered = enumerate(pairs, self.start)
        while rows := list(islice(numbered, self.batch_size)):
            yield rows

    def _read(self, rows: list[tuple[int, CaptionPair]]) -> Batch:
        inputs: list[Tensor | None] = []
        captions, seeds = [], []
        bad: dict[str, str] = {}
        for number, pair in rows:
            draw = random.Random(f"{self.seed} {number}")
            captions.append(self._caption(pair, draw, bad))
            seeds.append(draw.getrandbits(63))
            inputs.append(self._tensor(pair, bad))
        some = next((x for x in inputs if x is not None), None)
        if some is None:
            raise DataError(
                f"Not one picture of a batch can be read; the last: {[*bad.values()][-1]}"
            )
        full = [torch.zeros_like(some) if x is None else x for x in inputs]
        tokens = self.speller(captions)
        wrong = [i for i, (_, pair) in enumerate(rows) if pair.key in bad]
        return Batch(torch.stack(full), tokens.silent(wrong) if wrong else tokens, seeds, bad)

    def _caption(self, pair: CaptionPair, draw: random.Random, bad: dict[str, str]) -> str:
        """One of the captions, another in the next epoch."""
        if not pair.captions:
            self.pairs.reject(pair.key, f"{pair.key!r} of {self.pairs.name} has no caption.")
            bad[pair.key] = "it has no caption."
            return ""
        return pair.captions[0 if self.seed is None else draw.randrange(len(pair.captions))]

    def _tensor(self, pair: CaptionPair, bad: dict[str, str]) -> Tensor | None:
        try:
            return self.pairs.tensor(pair, self.pixels)
        except PictureError as error:
            if not self.pairs.skip_bad:
                raise
            bad[pair.key] = placeless(str(error))
            return None


def drop(soft: Tensor, share: float, seeds: list[int]) -> Tensor:
    """Dropout on soft prompts [row, patch, d_model], each row by its own seed.

    The kept entries are scaled by 1 / (1 - share), as `nn.Dropout` does.
    """
    if not share:
        return soft
    generator = torch.Generator(soft.device)
    kept = torch.empty_like(soft)
    for row, seed in zip(kept, seeds, strict=True):
        row.bernoulli_(1 - share, generator=generator.manual_seed(seed))
    return soft * kept / (1 - share)
