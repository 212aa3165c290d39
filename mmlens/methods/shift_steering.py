"""Steering along the shift between many pairs: VTI (Liu et al. 2024, arXiv:2410.15778).

    few = [[decoding.covered(model, 0.99, seed)(photo) for seed in range(8)] for photo in photos]
    seen = decoding.shift_directions(model, few, photos, "vision.resid_post", each=True)
    steady = model.edit(*decoding.steer_along("vision.resid_post", seen, scale=0.04))

    said = decoding.shift_directions(model, true_captions, false_captions)
    honest = model.edit(*decoding.steer_along("resid_post", said, scale=0.04))

1. Of each pair the activations of one side minus those of the other, layer by layer; a side of
   several prompts (one picture under many masks) is their mean. The visual shift goes from a
   picture to itself with most patches covered, the textual one from a false caption to the true
   one, at its last token.
2. The direction of a layer is the first principal one of the pairs' shifts: the first right
   singular vector of the matrix [pair, dim], its length the mean shift along it. Shifts are not
   centred: what all pairs share is what is wanted. (The authors centre them, and add the mean to
   the component, whose sign is arbitrary.)
3. x -> |x| normalize(x / |x| + scale d / |d|): no activation becomes longer, as in their program,
   whose scale is 0.1 times an alpha of 0.4 to 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.activations import activations
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site
from mmlens.model.targets import finite
from mmlens.values.arguments import flag, instance, number, several
from mmlens.values.edit import Edit
from mmlens.values.errors import AddressError, NumericsError
from mmlens.values.labels import LM, Patch
from mmlens.values.scores import Scores
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@needs("one pass")
def shift_directions(
    model: HookedModel,
    prompts: Sequence[Any],
    others: Sequence[Any],
    site: str | None = None,
    *,
    layer: Any = None,
    pos: Any = None,
    each: bool = False,
) -> Scores:
    """The first principal direction of how pairs differ: Scores(layer, dim), in maps channel.

    Args:
        prompts, others: the two sides, pair by pair; the direction leads from `others` to
            `prompts`. A side may be a list of prompts, whose mean counts.
        site: by default "resid_post" of the language model, or of the encoder that reads.
        layer: some layers only; the axis stays.
        pos: positions that are read; by default the last of a text, and all of an encoder's.
        each: whether each position has its own direction, Scores(layer, pos, dim), or all share
            that of their mean.

    Returns:
        `about["share"]`: how much of the squared shifts lies along the directions, on average.

    Raises:
        AddressError: sides of different numbers, or a site without one direction.
        NumericsError: no pair differs in any layer (where none does in one, that has zeros).
    """
    prompts, others = several(prompts, "prompts"), several(others, "others")
    if len(prompts) != len(others):
        raise AddressError(
            f"{len(prompts)} prompts and {len(others)} others are no pairs: give one for each."
        )
    first = prompts[0][0] if isinstance(prompts[0], (list, tuple)) and prompts[0] else prompts[0]
    where = site_of(site or own_site(model, "resid_post", first).name)
    pos = (-1 if where.tower == LM else slice(None)) if pos is None else pos
    read = partial(_read, model, site=where.name, layer=layer, pos=pos, each=flag(each, "each"))
    pairs = [read(one) - read(other) for one, other in zip(prompts, others, strict=True)]
    shifts = finite(torch.stack([one.values.float() for one in pairs], -2), "the shift of a pair")
    direction, share = principal(shifts)
    if not bool(direction.any()):
        raise NumericsError(
            f"No pair differs at {where.name!r} in these layers and positions, so there is no"
            " direction: give other prompts."
        )
    told = about(model, method="shift_directions", site=where.name, pos=pos, pairs=len(pairs),
                 share=float(share.mean()))  # fmt: skip
    return Scores(direction, pairs[0].axes, pairs[0].labels, told)


def _read(model: Any, side: Any, *, site: str, layer: Any, pos: Any, each: bool) -> Scores:
    """The mean activation of one side of a pair: Scores(layer, pos, dim) or (layer, dim)."""
    prompts = side if isinstance(side, (list, tuple)) else [side]
    layers = [layer] if isinstance(layer, int) else layer
    places = [pos] if isinstance(pos, int) else pos
    found = [activations(model, prompt, site, layer=layers, pos=places) for prompt in prompts]
    if not found:
        raise AddressError("A side of a pair has no prompt: give at least one.")
    if found[0].axes[:2] != ("layer", "pos") or len(found[0].axes) != 3:
        raise AddressError(f"Site {site!r} has no single direction: take a residual or MLP site.")
    values = torch.stack([one.values.float() for one in found]).mean(0)
    mean = Scores(values, found[0].axes, found[0].labels)
    return mean if each else mean.mean("pos")


def principal(
    shifts: Float[Tensor, "*where pair dim"],
) -> tuple[Float[Tensor, "*where dim"], Float[Tensor, " *where"]]:
    """The first right singular vector, as long as the mean along it, and its share of squares."""
    _, sizes, axes = torch.linalg.svd(shifts, full_matrices=False)
    first = axes[..., 0, :]
    mean = (shifts.mean(-2) * first).sum(-1, keepdim=True)
    squares = sizes**2
    return mean * first, squares[..., 0] / squares.sum(-1).clamp(min=1e-30)


def steer_along(
    site: str, directions: Scores, *, scale: float = 0.1, pos: Any = None
) -> list[Edit]:
    """Edits, one a layer, that turn activations along directions and keep their length.

    Args:
        directions: of `shift_directions`: Scores(layer, dim), or (layer, pos, dim) for each
            position its own.
        scale: the part of the direction beside an activation, both of length 1.
        pos: of Scores(layer, dim) the positions that are steered; by default all, and every new
            token.

    Raises:
        AddressError: directions of other axes, or that were measured at another site.
    """
    instance(directions, "directions", Scores, "what shift_directions(...) returned")
    scale, axes = number(scale, "scale"), directions.axes
    if axes[:1] != ("layer",) or len(axes) != (3 if "pos" in axes else 2):
        raise AddressError(f"Directions have the axes layer, (pos,) dim, and not {axes}.")
    measured = directions.about.get("site")
    if isinstance(measured, str) and site_of(measured).name != site_of(site).name:
        raise AddressError(
            f"These directions were measured at {measured!r}, where {site!r} holds other vectors:"
            f" write steer_along({measured!r}, ...), or to carry them over on purpose"
            " Scores(directions.values, directions.axes, directions.labels)."
        )
    if axes[1] == "pos":
        if pos is not None:
            raise AddressError("These directions have positions of their own: leave pos= out.")
        pos = list(directions.of("pos"))
    elif axes[1] == "channel":  # a map is turned patch by patch
        pos = Patch if pos is None else pos
    return [
        Edit(site, partial(_turned, directions.sel(layer=at).values, scale), layer=at, pos=pos)
        for at in directions.of("layer")
    ]


def _turned(direction: torch.Tensor, scale: float, x: torch.Tensor) -> torch.Tensor:
    along = torch.nn.functional.normalize(direction.to(x), dim=-1)
    length = x.norm(dim=-1, keepdim=True)
    return length * torch.nn.functional.normalize(
        x / length.clamp(min=1e-12) + scale * along, dim=-1
    )
