"""Are units about one thing? Three scores, each of activations on pictures of one known thing.

    purity      of the TOP pictures of largest activation, the share that show the commonest thing
    MonoScore   sum over pairs of pictures of a_n a_m s_nm / sum of a_n a_m, with activations scaled
                to [0, 1] and s_nm = 1 where both show one thing, else 0 (Pach et al. 2025, arXiv
                2504.02821, equation 3, with the truth in the place of an encoder's similarity)
    told by one AUROC of each thing's best unit against all other things, the unit chosen on every
                other picture of each thing, and the rest told by it

The first two have one number a unit; units that are active on fewer than TOP pictures are left out.
The third has one a thing, so that kinds of units are compared thing by thing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor

TOP = 10


def often_active(values: Float[Tensor, "picture unit"]) -> Bool[Tensor, " unit"]:
    """The units that are active on at least TOP pictures."""
    return (values > 0).sum(0) >= TOP


def purity(
    values: Float[Tensor, "picture unit"], things: Int[Tensor, " picture"]
) -> Float[Tensor, " unit"]:
    """The share of the TOP pictures of each unit that show the commonest thing among them."""
    best = things[values.topk(min(TOP, len(values)), dim=0).indices]  # [TOP, unit]
    counts = torch.nn.functional.one_hot(best, int(things.max()) + 1).sum(0)
    return counts.amax(-1) / len(best)


def mono_scores(
    values: Float[Tensor, "picture unit"], things: Int[Tensor, " picture"]
) -> Float[Tensor, " unit"]:
    """The MonoScore of each unit, from 0 to 1; 0 of a unit that is the same everywhere."""
    low, high = values.amin(0), values.amax(0)
    a = (values - low) / (high - low).clamp(min=1e-12)
    of_thing = torch.zeros(int(things.max()) + 1, a.shape[1]).index_add_(0, things, a)
    squares = a.square().sum(0)
    same = of_thing.square().sum(0) - squares
    return same / (a.sum(0).square() - squares).clamp(min=1e-12)


def told_by_one(
    values: Float[Tensor, "picture unit"], things: Int[Tensor, " picture"]
) -> Float[Tensor, " thing"]:
    """AUROC of the best single unit of each thing, chosen and told on different pictures."""
    order = torch.zeros_like(things)
    for thing in things.unique():
        own = things == thing
        order[own] = torch.arange(int(own.sum()))
    chooses = order % 2 == 0
    found = []
    chosen, rest = (_areas(values[half], things[half]) for half in (chooses, ~chooses))
    for thing in range(int(things.max()) + 1):
        found.append(rest[thing, chosen[thing].argmax()])
    return torch.stack(found)


def _areas(values: Tensor, things: Tensor) -> Float[Tensor, "thing unit"]:
    """AUROC of every unit for every thing; equal activations count half."""
    ranks = torch.from_numpy(rankdata(values.double().numpy(), axis=0))
    own = torch.nn.functional.one_hot(things).double().T  # [thing, picture]
    n = own.sum(1, keepdim=True)
    return (own @ ranks - n * (n + 1) / 2) / (n * (len(things) - n))
