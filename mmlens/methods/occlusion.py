"""Occlusion: what is lost when a square of the picture is covered, square by square.

Zeiler and Fergus (2014, arXiv 1311.2901), section 4.2. With S a square of patches, and b the value
of a patch without information,

    effect(S) = y(x) - y(x with b in S),    score(p) = mean over the squares S that hold p

The slow truth of covering: no gradient, no assumption about the inside of the model. With a side of
1 it is what `attribute_picture(..., attribution="occlusion")` gives. It answers one question only:
what else is in the picture can stand in for what is covered, and a hole is a shape of its own.

Axes: (pos), signed; positive where covering lowers the number that is explained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.picture_places import baseline_of, place_in
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.progress import Progress
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@needs("pictures")
@ordinary()
def occlusion(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    at: str | None = None,
    baseline: float | None = None,
    side: int = 1,
    batch: int = 8,
    progress: Progress | bool | None = None,
) -> Scores:
    """What covering each patch, or squares that hold it, takes from one word: Scores(pos).

    Args:
        of, target, after: as in `attribute`.
        at, baseline: as in `attribute_picture`.
        side: of the square that is covered, in patches; one square for each place where it fits.
        batch: pictures computed side by side (halved when memory runs out).
        progress: called with (done, of); by default a bar after two seconds, False for none.

    Raises:
        AddressError: a square that does not fit into the picture.
        CapabilityError: larger squares than a patch where positions have no single grid.
        SiteError: no such `at`, or what is explained does not depend on it.
    """
    place = place_in(model, prompt, of, target, after, at)
    x = place.read()
    base = baseline_of(x, baseline, place.at)
    n = place.count(x)
    side = count(side, "side", most=max(place.grid), error=AddressError)
    if side > 1 and n != place.grid[0] * place.grid[1]:
        raise CapabilityError(
            f"The positions at {place.at!r} of {model.name!r} are no one grid of patches, so there"
            " are no squares of them: write side=1, or at='pixels'."
        )
    covered = squares(place.grid, side) if side > 1 else torch.eye(n, dtype=torch.bool)
    covered = torch.block_diag(*[covered.float()] * len(x)).bool()
    with torch.no_grad():
        whole = place.numbers(x[None])
    effects = whole - place.shown(x, base, ~covered, batch, progress)
    held = covered.to(effects)
    values = place.depends((held.T @ effects) / held.sum(0))
    told = about(
        model, method="occlusion", prompt=place.soft, of=place.aimed.token, target=target,
        at=place.at, baseline="mean" if baseline is None else baseline, side=side,
        passes=len(covered) + 1,
    )  # fmt: skip
    return Scores(finite(values, "the occlusion"), ("pos",), {"pos": place.labels()}, told)


def squares(grid: tuple[int, int], side: int) -> Tensor:
    """Bool[square, patch]: every square of so many patches a side in a grid.

    Raises:
        AddressError: none fits.
    """
    rows, cols = grid
    if side > min(grid):
        raise AddressError(
            f"A square of {side} patches does not fit into {rows} x {cols}: write side="
            f"{min(grid)} or less."
        )
    found = []
    for row in range(rows - side + 1):
        for col in range(cols - side + 1):
            one = torch.zeros(rows, cols, dtype=torch.bool)
            one[row : row + side, col : col + side] = True
            found.append(one.flatten())
    return torch.stack(found)
