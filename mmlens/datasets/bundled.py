"""The bundled world as a data set: scenes of pictograms, each with captions and exact masks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

import mmlens.pictos
from mmlens.datasets.caption_pairs import DataError
from mmlens.datasets.sample import Box, Sample, Samples, Thing, content_hash
from mmlens.pictos.world import World
from mmlens.values.arguments import count

MOST = 1_000_000
"""Scenes of one data set: each has its name in memory."""


def pictos(
    split: str = "held_out",
    n: int = 200,
    seed: int = 0,
    *,
    things: int | None = None,
    style: str | None = None,
) -> Samples:
    """The first `n` scenes of a split: nothing is stored, each is drawn when it is asked for.

    The canonical caption comes first, the five paraphrases after it. The hash covers the arguments,
    the sprites and the pixels of the first scene.

    Args:
        split: "train", "held_out", or "unseen_pairs" (two things never trained together).
        seed: of the sequence of scenes.
        things: show always so many different things (1 to 3).
        style: "literal", "symbolic" or "written".

    Raises:
        DataError: no such split, style or number of things, or `n` is below 1.
    """
    asked = f"pictos:{split}:{n}:{seed}"
    n = count(n, "n", most=MOST, error=DataError)
    seed = count(seed, "seed", least=0, error=DataError)
    try:
        world = World(split, seed, things=things, style=style)
    except ValueError as error:
        raise DataError(str(error)) from None

    def read(place: int) -> Sample:
        scene = world.scene(place)
        shown = tuple(
            Thing(one.name, scene.masks[one.mask], box_around(scene.masks[one.mask]))
            for one in scene.objects
        )
        said = tuple(dict.fromkeys((scene.caption, *scene.captions)))
        return Sample(ids[place], scene.image, said, shown, split)

    kind = "".join(f", {only}" for only in (things and f"{things} things", style) if only)
    ids = [f"{split}-{seed}-{place}" for place in range(n)]
    first = world.scene(0).image.tobytes()
    digest = content_hash(asked, str(things), str(style), _sprites(), first)
    return Samples(f"pictos {split} (seed {seed}{kind})", ids, read, digest)


def box_around(mask: torch.Tensor) -> Box | None:
    """The smallest box around a mask Bool[height, width]; None around nothing."""
    rows, cols = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return None
    return float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1)


@lru_cache(maxsize=1)
def _sprites() -> str:
    return content_hash((Path(mmlens.pictos.__path__[0]) / "sprites.npz").read_bytes())
