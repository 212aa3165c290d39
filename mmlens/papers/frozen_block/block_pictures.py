"""The pictures of the study: one thing each, with its mask; and which tokens are the thing's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mmlens.causal.masked_patches import patches_under
from mmlens.causal.picture_boxes import patch_boxes
from mmlens.datasets.bundled import pictos
from mmlens.datasets.sample import Sample, Samples
from mmlens.methods.activations import activations
from mmlens.papers.tables import ExperimentError
from mmlens.pictos.world import World
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

KINDS, PICTURES = 96, 800
SPLIT = "held_out"


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures of one thing.

    Attributes:
        train: those that are learned from.
        held_out: those that are asked; what they show is among what is learned.
    """

    train: list[Sample]
    held_out: list[Sample]


def world_pictures(pictures: int = PICTURES, kinds: int = KINDS, seed: int = 0) -> Samples:
    """Scenes of the bundled world that show one thing each, of so many kinds.

    They are of the split that the bundled models were not trained on.
    """
    world, places, start = World(SPLIT, seed, things=1), [], 0
    step = max(1, len(world.names) // kinds)
    wanted = set(range(0, step * kinds, step))
    while len(places) < pictures:
        first = world.cast(range(start, start + 4096))[2][:, 0].tolist()
        places += [start + at for at, concept in enumerate(first) if concept in wanted]
        start += 4096
    every = pictos(SPLIT, start, seed, things=1)
    return every.pick(places[:pictures])


def labelled(samples: Samples, train: int) -> LabelledPictures:
    """The first `train` of the pictures that show one thing with a mask, and the rest.

    Raises:
        ExperimentError: too few pictures, or only one kind of thing.
    """
    shown = [one for one in samples if len(one.things) == 1 and one.things[0].mask is not None]
    first = shown[:train]
    kinds = Counter(one.things[0].name for one in first)
    rest = [one for one in shown[train:] if one.things[0].name in kinds]
    if len(kinds) < 2 or not rest:
        raise ExperimentError(
            f"Of {len(samples)} pictures of {samples.name} {len(shown)} show one thing with a mask,"
            f" of {len(kinds)} kinds among the first {train}: give more pictures, or a smaller"
            " train=, so that some are held out."
        )
    return LabelledPictures(first, rest)


def names_of(samples: Sequence[Sample]) -> list[str]:
    """What each shows."""
    return [one.things[0].name for one in samples]


def token_mask(model: HookedVLM, sample: Sample, share: float) -> Bool[Tensor, " token"]:
    """Which of the encoder's patches lie under the thing, to at least a `share` of them.

    Where positions of the language model are merged of several patches, each has the mask of its
    position.

    Raises:
        CapabilityError: the encoder reads this picture in several crops, or as no patches.
    """
    found: Any = activations(model, Prompt(sample.image), "features")
    labels, boxes = found.of("pos"), patch_boxes(model, sample.image)
    crops = found.values.numel() // found.values.shape[-1] // len(labels)
    places = [one for one in labels if isinstance(one, Patch)]
    if crops != 1 or len(places) != len(labels) or not boxes:
        raise CapabilityError(
            f"{model.name!r} reads a picture in {crops} crops, or as other than patches: ask a"
            " model whose features are one grid of patches of the whole picture."
        )
    fine = [1 + max(getattr(one, axis) for one in places) for axis in ("row", "col")]
    grid = [1 + max(getattr(one, axis) for one in boxes) for axis in ("row", "col")]
    under = patches_under(model, sample.things[0].mask, sample.image, share)
    covered = {(one.row, one.col) for one in under}
    rows, cols = (a / b for a, b in zip(fine, grid, strict=True))
    return torch.tensor([(int(one.row // rows), int(one.col // cols)) in covered for one in places])
