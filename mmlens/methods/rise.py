"""RISE: what is there on average when a patch is shown, over random masks.

Petsiuk, Das and Saenko (2018, arXiv 1806.07421), eq. 2 and 6, with masks M that show each cell with
probability p, and y as it is when only these are shown and the rest is the baseline b. Their map,
E[y M(i)] / p, is a map of

    score(i) = E[y | i shown] - E[y | i covered]  =  (E[y M(i)] - p E[y]) / (p (1 - p))

up to a factor and a constant, which are taken out here so that it is signed and in units of y: for
a y that is linear, the expectation is exactly w_i (x_i - b_i). The mean is over n masks, half of
them the complements of the others where p is 1/2; `about["error"]` is the largest standard error.

Axes: (pos), signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.picture_places import PicturePlace, baseline_of, place_in
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.progress import Progress
from mmlens.values.arguments import SEEDS, count, number
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


MOST = 100_000
"""Masks beyond which a run takes hours and no number changes."""


@needs("pictures")
@ordinary()
def rise(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    at: str | None = None,
    baseline: float | None = None,
    masks: int = 400,
    share: float = 0.5,
    side: int = 1,
    seed: int = 0,
    batch: int = 8,
    progress: Progress | bool | None = None,
) -> Scores:
    """The mean of one word's number with each patch shown less that with it covered: Scores(pos).

    Args:
        of, target, after: as in `attribute`.
        at, baseline: as in `attribute_picture`.
        masks: how many random masks, each a forward pass.
        share: the probability with which a cell is shown, between 0 and 1.
        side: of a cell, in patches; each mask's grid of cells is shifted at random, as in the paper
            (whose cells are 32 pixels of 224). Larger cells cost fewer masks and blur the map.
        seed: of the masks.
        batch: pictures computed side by side (halved when memory runs out).
        progress: called with (done, of); by default a bar after two seconds, False for none.

    Raises:
        AddressError: a share that shows all or nothing, or too few masks for a patch.
        SiteError: no such `at`, or what is explained does not depend on it.
    """
    masks = count(masks, "masks", least=2, most=MOST)
    p = number(share, "share", least=0, most=1)
    if not 0 < p < 1:
        raise AddressError(f"share={share}: masks show a share between 0 and 1, as in share=0.5.")
    seed = count(seed, "seed", least=0, most=SEEDS)
    place = place_in(model, prompt, of, target, after, at)
    x = place.read()
    base = baseline_of(x, baseline, place.at)
    keep = drawn(place, x, masks, p, count(side, "side", most=max(place.grid)), seed)
    y = place.shown(x, base, keep, batch, progress)
    values, error = differences(keep.to(y), y)
    told = about(
        model, method="rise", prompt=place.soft, of=place.aimed.token, target=target, at=place.at,
        baseline="mean" if baseline is None else baseline, masks=masks, share=p, side=side,
        seed=seed, error=float(error.max()), passes=masks,
    )  # fmt: skip
    values = finite(place.depends(values), "the map of RISE")
    return Scores(values, ("pos",), {"pos": place.labels()}, told)


def drawn(place: PicturePlace, x: Tensor, masks: int, share: float, side: int, seed: int) -> Tensor:
    """Bool[mask, picture * patch]: what each mask shows; the same masks for every model and word.

    At one half, every second mask is the complement of the one before: then a constant in y is no
    noise.
    """
    random = torch.Generator().manual_seed(seed)
    n = place.count(x)
    rows, cols = place.grid if n == place.grid[0] * place.grid[1] else (1, n)
    halves = share == 0.5
    many = -(-masks // 2) if halves else masks
    tall, wide = rows // side + 2, cols // side + 2
    cells = torch.rand(many, len(x), tall, wide, generator=random) < share
    shift = torch.randint(side, (many, 2), generator=random)
    row = (torch.arange(rows) + shift[:, :1]) // side
    col = (torch.arange(cols) + shift[:, 1:]) // side
    at = torch.arange(many)[:, None, None]
    keep = cells[at, :, row[:, :, None], col[:, None, :]].permute(0, 3, 1, 2).flatten(1)
    return torch.stack([keep, ~keep], 1).flatten(0, 1)[:masks] if halves else keep


def differences(keep: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Means of y with each patch shown less with it covered, and their standard errors.

    Args:
        keep: Float[mask, patch], 1 or 0. y: Float[mask].

    Raises:
        AddressError: a patch that no mask shows, or none covers.
    """
    shown, covered = keep.sum(0), (1 - keep).sum(0)
    if not bool((shown > 0).all() and (covered > 0).all()):
        raise AddressError(
            f"{len(y)} masks show or cover some patch not once: write more, as in masks=400, or a"
            " share nearer to 0.5."
        )
    with_it, without = keep.T @ y / shown, (1 - keep).T @ y / covered
    spread = keep.T @ y.square() / shown - with_it.square()
    other = (1 - keep).T @ y.square() / covered - without.square()
    return with_it - without, (spread / shown + other / covered).clamp(min=0).sqrt()
