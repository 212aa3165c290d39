"""Grad-CAM: activations of a layer, weighted by the gradient of what is explained.

Selvaraju et al. (2017, arXiv 1610.02391), eq. 1 and 2. With A[p, d] channel (or dimension) d of a
layer at patch p,

    a_d = mean over p of dy/dA[p, d],    map[p] = ReLU( sum_d a_d A[p, d] )

With `weights="each"` every patch keeps its own gradient, sum_d dy/dA[p, d] A[p, d] (HiResCAM,
Draelos and Carin 2020, arXiv 2011.08891), which is exact where what follows is linear and where the
mean over patches is no summary, as in transformers.

In a transformer that reads a class token, the last layer's patches are read by nothing; the last
layer is meant whose patches the answer depends on.

Axes: (pos), not negative unless `signed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmlens.methods.gradients_at import gradients_at
from mmlens.model import hooking
from mmlens.model.capabilities import need_gradient, needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.runtime.autograd import ordinary
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, flag
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import LM, Label, Patch
from mmlens.values.maps import as_positions, is_map
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES, Site
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

WEIGHTS = ("mean", "each")


@needs("pictures")
@ordinary()
def grad_cam(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    site: str | None = None,
    layer: int | None = None,
    weights: str = "mean",
    signed: bool = False,
) -> Scores:
    """The part of each patch in a layer's activations that raises one word: Scores(pos).

    Args:
        of, target, after: as in `attribute`; a Neuron, too.
        site: "vision.resid_post" unless said otherwise; any site with patches, such as "resid_post"
            of the language model.
        layer: one; None for the last whose patches the answer depends on.
        weights: "mean" over the patches of each channel (the paper's), or "each" patch its own.
        signed: keep what lowers the word, which the paper cuts off.

    Raises:
        AddressError: no patches at this site, or nothing that depends on it.
        CapabilityError: the pictures are codes, through which no gradient passes.
    """
    where = site_of(site or "vision.resid_post")
    weights, signed = choice(weights, "weights", WEIGHTS), flag(signed, "signed")
    hooking.tower_at(model, where)
    need_gradient(model, where.tower)
    reading, aimed = model.aim(prompt, of, target, after)
    every: list[Any] = list(hooking.layers(model, where)) if where.layered else [None]
    if where.layered and layer is not None:
        every = [every[at] for at in places(every, layer, "layer")]
    real = hooking.check_places(model, where, every)
    kept, _ = gradients_at(model, reading, aimed, [where.at(one) for one in every])
    for at in reversed(every):
        found = kept[where.at(at)]
        labels = _labels(model, reading, where, at)
        patches = [i for i, label in enumerate(labels) if isinstance(label, Patch)]
        if found.grad is None:
            continue
        value, grad = (by_position(x, real[at].axes)[patches] for x in (found.value, found.grad))
        if bool(grad.any()):
            break
    else:
        raise AddressError(
            f"What is explained depends on no patch at {where.name!r} of {model.name!r} in the"
            f" layers {every}: name an earlier layer, or another site."
        )
    gain = grad.mean(0, keepdim=True) if weights == "mean" else grad
    values = (gain * value).sum(-1)
    values = values if signed else values.clamp(min=0)
    told = about(model, method="grad_cam", prompt=reading, of=aimed.token, target=target,
                 site=where.name, layer=at, weights=weights)  # fmt: skip
    named = tuple(labels[i] for i in patches)
    return Scores(finite(values, "Grad-CAM"), ("pos",), {"pos": named}, told)


def _labels(model: HookedModel, reading: Any, where: Site, layer: Any) -> list[Label]:
    """The labels of all positions at a site, pictures and crops one after the other."""
    if where.tower == LM:
        return list(reading.labels[0])
    return [one for row in model.picture_rows(reading.prompts, where, layer) for one in row]


def by_position(values: Tensor, axes: tuple[str, ...]) -> Tensor:
    """[crop, *axes] as Float[pos, dim], crops one after the other.

    Raises:
        CapabilityError: no positions there.
    """
    if is_map(axes):
        return as_positions(values, axes).flatten(0, 1)
    if axes[:1] != ("pos",):
        raise CapabilityError(
            f"Grad-CAM is taken at a site with positions, and this one has the axes {axes}: write"
            f" one of {[name for name in SITES if name.endswith('resid_post')]}."
        )
    return values.flatten(2).flatten(0, 1)
