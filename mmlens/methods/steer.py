"""Steering: Edits that add or remove directions, also while a caption is generated.

    dog = mean_difference(model, with_dogs, without, "resid_post", layer=5, pos=Patch)
    model.edit(steer("resid_post", dog, scale=4, layer=5)).generate(prompt)
    model.edit(remove("resid_post", word(model, " dog"), layer=5)).generate(prompt)

    steer    x -> x + scale * d                     (Turner et al. 2023; normalize=True: d / |d|)
    remove   x -> x - amount * (x . d) d / |d|^2    (Ravfogel et al. 2020; Jiang et al. 2024, on
                                                     image positions, where x . d > 0 only)

A direction is Scores(dim) or a tensor Float[d_model].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.activations import activations
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site
from mmlens.model.targets import finite
from mmlens.towers.language.tokenization import id_of
from mmlens.towers.language.tokenization import word as spelled
from mmlens.values.arguments import instance, number, several, shown
from mmlens.values.edit import Edit
from mmlens.values.errors import AddressError, ArgumentError, NumericsError
from mmlens.values.labels import LM, Neuron
from mmlens.values.scores import Scores
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel
    from mmlens.model.hooked_vlm import HookedVLM

Direction = Scores | torch.Tensor


@needs("one pass")
def mean_difference(
    model: HookedModel,
    prompts: Sequence[Any],
    others: Sequence[Any],
    site: str | None = None,
    *,
    layer: int,
    pos: Any = -1,
) -> Scores:
    """The mean activation of some prompts minus that of others: Scores(dim).

    Args:
        site: by default "resid_post" of the language model, or of the encoder that reads.
        pos: positions of each prompt that are averaged.

    Raises:
        AddressError: one of the two is empty, or the site has no single direction.
    """
    prompts = several(prompts, "prompts", least=0, what="list of prompts")
    others = several(others, "others", least=0, what="list of prompts")
    if not prompts or not others:
        raise AddressError("A difference of means needs at least one prompt on both sides.")

    site = site or own_site(model, "resid_post", prompts[0]).name

    def mean(some: Sequence[Any]) -> torch.Tensor:
        rows = [activations(model, prompt, site, layer=layer, pos=pos) for prompt in some]
        values = [row.mean("pos") if "pos" in row.axes else row for row in rows]
        return torch.stack([value.values.float() for value in values]).mean(0)

    direction = finite(mean(prompts) - mean(others), f"the difference of means at {site!r}")
    if direction.ndim != 1:
        raise AddressError(f"Site {site!r} has no single direction: take a residual or MLP site.")
    told = about(model, method="mean_difference", site=site, layer=layer, pos=pos)
    return Scores(direction, ("dim",), {}, told)


@needs("unembed")
def word(model: HookedVLM, of: str | int) -> Scores:
    """The unembedding direction of a word of one token (or of an id): Scores(dim)."""
    token = id_of(model.lm, of)
    told = about(model, method="word", of=of if isinstance(of, str) else spelled(model.lm, token))
    return Scores(model.lm.word_directions([token])[:, 0].float(), ("dim",), {}, told)


@needs("blocks")
def written_by(model: HookedVLM, neuron: Any) -> Scores:
    """What a neuron writes to the stream, per unit of activation: Scores(dim).

    Of several (a list, a Series, a table of Neurons), Scores(neuron, dim).

    That is its row of W_out, times a scale (Granite) or the gain of a norm (Gemma 2 and 3, OLMo 2,
    GLM-4) between the MLP and the stream. With a norm the weights give only the direction; the
    length depends on the run, and `about["norm"]` notes it. A neuron whose activation is negative
    writes the opposite.

    Raises:
        AddressError: there is no such neuron. CapabilityError: the layer has no MLP units.
    """
    if not isinstance(neuron, Neuron):
        many = units_in(neuron, "neuron", Neuron, least=1)
        found = [written_by(model, one) for one in many]
        return found[0] if isinstance(neuron, str) else Scores.concat(found, "neuron", many)
    model.lm.units.find(model.name, [neuron])
    with torch.no_grad():
        units = model.lm.units
        row = units.written(neuron.layer, [neuron.unit], neuron.expert, neuron.tower)[0]
    normed = neuron.tower == LM and neuron.layer in units.normed
    norm = "behind the MLP: the direction, its length depends on the run" if normed else "none"
    told = about(model, method="written_by", neuron=neuron, norm=norm)
    return Scores(row.clone(), ("dim",), {}, told)


def steer(
    site: str, direction: Direction, *address: Any, scale: float = 1.0, normalize: bool = False,
    **by_axis: Any,
) -> Edit:  # fmt: skip
    """An Edit that adds `scale` times a direction at the address.

    It reads no prompt, so it takes no list of any: the edited model answers what it is asked, and
    `patching.captions(model, prompts, {"steered": steer(...)})` asks many.

    Args:
        normalize: scale the direction to length 1 first.
    """
    d = _vector(direction)
    d = d / d.norm() if normalize else d
    number(scale, "scale")
    return Edit.steer(site, d, *address, scale=scale, **by_axis)


def remove(
    site: str, direction: Direction, *address: Any, amount: float = 1.0, positive: bool = False,
    **by_axis: Any,
) -> Edit:  # fmt: skip
    """An Edit that removes (a share of) a direction from the activations at the address.

    As `steer`, it reads no prompt and takes no list of any.

    Args:
        amount: 1 removes it, 2 reflects it, 0 leaves it.
        positive: only where it is present with a positive sign.
    """
    d = _vector(direction)
    d = d / d.norm()
    number(amount, "amount")

    def without(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != len(d):
            raise AddressError(
                f"This direction has {len(d)} dimensions, and the activations at {site!r} have"
                f" {x.shape[-1]}."
            )
        here = d.to(x)
        share = x @ here
        share = share.clamp(min=0) if positive else share
        return x - amount * share.unsqueeze(-1) * here

    return Edit(site, without, *address, **by_axis)


def _vector(direction: Any) -> Float[Tensor, " dim"]:
    if isinstance(direction, (list, tuple)):
        raise ArgumentError(
            f"direction={shown(direction)} is a list, and an Edit has one direction: write"
            " model.edit(*[steer(site, one) for one in directions]), or for many prompts"
            " patching.captions(model, prompts, {'steered': steer(...)})."
        )
    values = direction.values if isinstance(direction, Scores) else direction
    values = instance(values, "direction", torch.Tensor, "Scores(dim) or a tensor")
    values = values if values.is_floating_point() else values.float()
    if values.ndim != 1:
        raise AddressError(
            f"A direction has one axis, not shape {tuple(values.shape)}: narrow it with .sel(...)."
        )
    if not bool(torch.isfinite(values).all()) or float(values.norm()) == 0.0:
        raise NumericsError("A direction of length 0, or with NaN in it, is no direction.")
    return values
