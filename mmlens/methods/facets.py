"""Facets of a unit: a term that pulls its picture towards one kind of pictures it answers to.

Goh et al. (Multimodal Neurons, Distill 2021, appendix "Faceted Feature Visualization") maximise

    f(g(x)) + w . (g(x) * grad f(g(x)))

with g the activations of a lower layer, f the rest of the network up to the unit, and w the weights
of a linear probe there that separates pictures of the facet (faces, drawings, written words) from
others. The gradient weighs what of g the unit uses, so the term is not w . g. As in the authors'
code the gradient is held fixed within a step and cut at 0, without which the term pulls away from
the facet along dimensions that lower the unit; `rectified=False` is the formula as printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.activations import activations
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import number, several
from mmlens.values.errors import ArgumentError
from mmlens.values.maps import as_positions, inner_of, is_map
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@dataclass(frozen=True, eq=False)
class Facet:
    """What a picture is pulled towards: a direction at a site of the vision tower.

    Attributes:
        site: "vision.resid_post", ...
        layer: which layer of it.
        weights: Float[dim], the same at all positions, or Float[pos, dim].
        strength: the factor of the term.
        rectified: whether negative gradients are cut at 0.
        about: how it was made.
    """

    site: str
    layer: int | None
    weights: torch.Tensor
    strength: float = 1.0
    rectified: bool = True
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def point(self) -> str:
        """The hook name."""
        return site_of(self.site).at(self.layer)

    def term(
        self, values: Float[Tensor, "picture pos dim"], grads: Float[Tensor, "picture pos dim"]
    ) -> Float[Tensor, " picture"]:
        """strength * w . (g * grad f(g)).

        Raises:
            ArgumentError: weights of another width than the layer's.
        """
        weights = self.weights.to(values)
        if weights.shape not in (values.shape[1:], values.shape[2:]):
            raise ArgumentError(
                f"The facet's weights are {tuple(weights.shape)}, and {self.point!r} holds"
                f" {tuple(values.shape[1:])} (positions, width): give one weight per dimension, or"
                " per position and dimension."
            )
        grads = grads.clamp(min=0) if self.rectified else grads
        return self.strength * (weights * values * grads).sum((-2, -1))


@needs("pictures")
@ordinary()
def facet(
    model: HookedModel,
    pictures: Any,
    others: Any,
    site: str = "vision.resid_post",
    *,
    layer: int,
    penalty: float = 1e-2,
    strength: float = 1.0,
    rectified: bool = True,
) -> Facet:
    """A linear probe that separates pictures of a facet from others, at one layer.

    A logistic regression of the mean over positions; of both kinds every fifth picture is kept out
    of it, and `about["accuracy"]` is the share of these that it tells right.

    Args:
        pictures: those of the facet, at least 5. others: of everything else, at least 5.
        penalty: of the squared weights, on standardised dimensions.
        strength, rectified: as in `Facet`.

    Raises:
        ArgumentError: too few pictures.
    """
    groups = [several(one, name) for one, name in ((pictures, "pictures"), (others, "others"))]
    for name, group in zip(("pictures", "others"), groups, strict=True):
        if len(group) < 5:
            raise ArgumentError(
                f"{name} holds {len(group)}: a probe takes at least 5 of each kind."
            )
    penalty = number(penalty, "penalty", least=0)
    means = [torch.stack([_mean(model, one, site, layer) for one in group]) for group in groups]
    x = torch.cat(means)
    y = torch.cat([torch.ones(len(means[0])), torch.zeros(len(means[1]))])
    held = torch.cat([torch.arange(len(group)) % 5 == 4 for group in means])
    centre, scale = x[~held].mean(0), x[~held].std(0).clamp(min=1e-6)
    weights, bias = _fit((x[~held] - centre) / scale, y[~held], penalty)
    said = ((x[held] - centre) / scale) @ weights + bias > 0
    told = about(model, method="facet", site=site, layer=layer, penalty=penalty,
                 pictures=len(means[0]), others=len(means[1]),
                 accuracy=float((said == y[held].bool()).float().mean()))  # fmt: skip
    return Facet(site, layer, weights / scale, strength, rectified, told)


def positions(model: HookedModel, name: str, layer: int | None, values: Tensor) -> Tensor:
    """Activations [picture, *axes] of a site as Float[picture, pos, unit]; heads are laid flat."""
    where = site_of(name)
    axes = hooking.check_places(model, where, [layer])[layer].axes
    return flat(values, axes)


def flat(values: Tensor, axes: tuple[str, ...]) -> Tensor:
    """[picture, *axes] as [picture, pos, unit]."""
    return as_positions(values, axes) if is_map(axes) else values.flatten(2)


def _mean(model: HookedModel, picture: Any, site: str, layer: int) -> Tensor:
    """The mean over positions of one picture's activations: Float[dim]."""
    found = activations(model, picture, site, layer=layer)
    if is_map(found.axes):
        inner = found.axes.index(inner_of(found.axes))
        return found.values.float().mean([i for i in range(found.values.ndim) if i != inner])
    return found.values.float().flatten(1).mean(0)


def _fit(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights and bias of a logistic regression with a penalty of squares."""
    weights = torch.zeros(x.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    newton = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        newton.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weights + bias, y)
        value = value + penalty * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        newton.step(loss)
    return weights.detach(), bias.detach()
