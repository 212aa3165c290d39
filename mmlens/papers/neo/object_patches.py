"""A thing's patches, the ring around them, and bare ground, in one picture that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmlens.causal.masked_patches import patches_under
from mmlens.papers.mmn.questions.regions import UNMASKED, named_mask
from mmlens.papers.tables import UNNAMED, ExperimentError
from mmlens.values.arguments import count
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.datasets.sample import Sample
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.papers.mmn.questions.explained import Explained

CROWDED = "less bare ground than patches of the thing and around it"


@dataclass(frozen=True)
class ObjectPatches:
    """Where the thing is that the noun names.

    Attributes:
        thing: the patches that its mask touches.
        around: these, and those next to them, in all eight directions.
        bare: patches that touch no thing of the picture, and are not next to this one.
        others: all patches but those of `around`.
    """

    thing: list[Patch]
    around: list[Patch]
    bare: list[Patch]
    others: list[Patch]

    def drawn(self, random: torch.Generator) -> list[Patch]:
        """As many patches of bare ground as lie in and around the thing: the control."""
        chosen = torch.randperm(len(self.bare), generator=random)[: len(self.around)]
        return [self.bare[at] for at in sorted(chosen.tolist())]


def object_patches(
    model: HookedVLM, sample: Sample, seen: Explained | None, share: float, ring: int
) -> ObjectPatches | str:
    """The patches, or the reason why this picture has no answer.

    Args:
        share: so much of a patch must lie under the mask.
        ring: how many patches around the thing belong to it as well.
    """
    count(ring, "ring", least=0, error=ExperimentError)
    mask = seen and named_mask(sample, seen.noun)
    if seen is None or mask is None:
        return UNMASKED if seen else UNNAMED
    picture = seen.prompt.prompts[0].pictures[0]
    thing = patches_under(model, mask, picture, share)
    masks = [one.mask for one in sample.things if one.mask is not None]
    covered = set(patches_under(model, torch.stack(masks).any(0), picture, 1e-6))
    every = [label for label in seen.soft.labels[0] if isinstance(label, Patch)]
    around = [one for one in every if any(_near(one, own, ring) for own in thing)]
    others = [one for one in every if one not in set(around)]
    bare = [one for one in others if one not in covered]
    if not thing or len(bare) < len(around):
        return CROWDED if thing else UNMASKED
    return ObjectPatches(thing, around, bare, others)


def _near(one: Patch, other: Patch, ring: int) -> bool:
    """Whether two patches of one crop are at most so many steps apart."""
    same = (one.image, one.crop) == (other.image, other.crop)
    return same and max(abs(one.row - other.row), abs(one.col - other.col)) <= ring


def numbers(logits: Any, token: int) -> tuple[float, float]:
    """The probability of a token, and whether it leads."""
    row = logits.float()
    return float(row.softmax(-1)[token]), float(row.argmax() == token)
