"""What is added up of the shares that `decompose` gives: a heat map, and a mean-ablated embedding.

    heat_map(decompose(model, photo, by="patch", along="a photo of a dog"))          # Scores(pos)
    shares = decompose(model, photos)
    mean_ablated(shares, part=["mlp 0", "mlp 1"])                           # Scores(picture, dim)

Mean-ablation of direct contributions (Gandelsman et al. 2024, section 3.2) puts a part's mean over
pictures in place of its own share, in a sum: nothing is run again, and later layers don't answer to
it, as they do to an `Edit`.
"""

from __future__ import annotations

from typing import Any

import torch

from mmlens.values.addresses import places, read_address
from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError
from mmlens.values.labels import Patch
from mmlens.values.scores import Scores

AXES = ("part", "layer", "head", "pos", "unit")
"""The axes over which shares add up."""


def heat_map(shares: Scores) -> Scores:
    """The patches of shares by "patch" or "pos", summed over layers and heads: Scores(..., pos).

    The paper's zero-shot segmentation (section 5) is where this is above its mean.

    Raises:
        AddressError: the shares are not those of positions.
    """
    _shares(shares)
    if "pos" not in shares.axes:
        raise AddressError(
            f"{shares!r} has no axis pos: write decompose(model, photo, by='patch', along='a dog')."
        )
    axes = [axis for axis in ("layer", "head") if axis in shares.axes]
    summed = shares.sum(*axes) if axes else shares
    return summed.sel(pos=Patch)


def mean_ablated(
    shares: Scores, *address: Any, mean: Scores | None = None, **by_axis: Any
) -> Scores:
    """The sum of all shares with the addressed ones replaced by their mean: Scores(picture, dim).

    Args:
        shares: of a list of pictures, from `decompose`; by="part" for whole embeddings.
        address: which shares are replaced, as in `Scores.sel`: part="mlp 0", Head(3, 1).
        mean: shares of other pictures, or their mean; None: of these.

    Raises:
        AddressError: no address, none of these labels, or shares of one picture without a mean.
    """
    _shares(shares)
    if "picture" not in shares.axes and mean is None:
        raise AddressError(
            f"{shares!r} are shares of one picture, which are their own mean: give several pictures"
            " or mean=."
        )
    wanted = read_address(address, by_axis)
    if not wanted or not set(wanted) <= set(shares.axes) & set(AXES):
        raise AddressError(
            f"There is nothing to replace at {wanted}: name labels of"
            f" {', '.join(axis for axis in shares.axes if axis in AXES)}, as in part='mlp 0'."
        )
    usual = shares if mean is None else _shares(mean, "mean")
    usual = usual.mean("picture") if "picture" in usual.axes else usual
    if usual.axes != tuple(axis for axis in shares.axes if axis != "picture"):
        raise AddressError(
            f"mean={usual!r} has other axes than {shares!r}: give shares of one kind."
        )
    instead, chosen = usual.values.to(shares.values), torch.ones(usual.shape, dtype=torch.bool)
    for axis, want in wanted.items():
        dim, found = usual.axes.index(axis), places(usual.of(axis), want, axis)
        here = torch.zeros(usual.shape[dim], dtype=torch.bool)
        here[found] = True
        chosen &= here.view(-1, *[1] * (chosen.dim() - 1 - dim))
    values = shares.values.where(~chosen.to(instead.device), instead)
    replaced = Scores(values, shares.axes, shares.labels, shares.about)
    return replaced.sum(*(axis for axis in shares.axes if axis in AXES))


def _shares(shares: Any, name: str = "shares") -> Scores:
    return instance(shares, name, Scores, "what mmlens.decompose returns")
