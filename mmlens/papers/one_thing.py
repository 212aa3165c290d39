"""Pictures of one known thing each: of the bundled world, or of what a caller gives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from mmlens.datasets.bundled import pictos
from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset
from mmlens.papers.tables import ExperimentError
from mmlens.pictos import World

THINGS, EACH, LEAST = 20, 15, 4
"""Of the bundled world: its first things, and scenes of each; of other data: the fewest of each."""


def scenes(split: str, n: int, each: int | None = None) -> Samples:
    """Scenes of a split of the bundled world that show its first THINGS things alone.

    Args:
        n: how many scenes; with `each`, so many scenes of one thing for every thing instead.
    """
    many = 60_000 if each is None else 20_000
    world = World(split, 0, things=None if each is None else 1)
    _, _, shown = world.cast(range(many))
    if each is None:
        places = (shown < THINGS).all(1).nonzero()[:n, 0].tolist()
    else:
        rows = [(shown[:, 0] == thing).nonzero()[:each, 0] for thing in range(THINGS)]
        places = torch.cat(rows).tolist()
    return pictos(split, many, things=world.things).pick(places)


def of_one_thing(data: Any) -> Samples:
    """Pictures of one thing each, of things that at least four of them show.

    Args:
        data: what `mmlens.dataset` takes; None for scenes of the bundled world.

    Raises:
        ExperimentError: of fewer than two things there are as many pictures.
    """
    if data is None:
        return scenes("held_out", 0, EACH)
    samples = dataset(data)
    alone = {i: samples[i].names[0] for i in range(len(samples)) if len(samples[i].names) == 1}
    often = {name for name, n in Counter(alone.values()).items() if n >= LEAST}
    if len(often) < 2:
        raise ExperimentError(
            f"{samples.name} has {len(often)} things that {LEAST} pictures show alone: two at least"
            " are needed."
        )
    return samples.pick([i for i, name in alone.items() if name in often])


def things_of(samples: Samples) -> tuple[list[str], torch.Tensor]:
    """The names of all things, and Int[picture], which of them each picture shows."""
    names = [samples[i].names[0] for i in range(len(samples))]
    known = sorted(set(names))
    return known, torch.tensor([known.index(one) for one in names])
