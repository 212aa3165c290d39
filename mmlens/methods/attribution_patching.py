"""Attribution patching: the first-order effect of every patch, from one backward pass.

    score[place] = (source - base)[place] . d metric / d base[place]

(Nanda 2023; Syed, Rager & Conmy 2023), summed over the last axis, where base is the run that is
patched. It is inaccurate where the metric is not linear between the runs. With `steps` the gradient
is the mean over so many points of the straight line from base to source, one layer's activations at
a time (integrated gradients); then the scores of a layer add up to the effect of patching the whole
layer, which is checked at each call (`mmlens.methods.quadrature`).

Axes: those of `patch`, in full: (layer, pos), at sites of heads (layer, pos, head), at "neurons"
(layer, pos, unit). A sum over positions estimates patching them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.causal.many_pairs import over_pairs
from mmlens.causal.pairs import Pair
from mmlens.causal.places import Place, layers_at, place_of, stays
from mmlens.causal.prefix_reuse import Kept
from mmlens.causal.variants import Metric, differentiable, measured, standing
from mmlens.methods.patch import _runs
from mmlens.methods.quadrature import MOST, Integral, complete
from mmlens.model import hooking
from mmlens.model.capabilities import need_gradient, needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site
from mmlens.model.targets import finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import seed, wide
from mmlens.runtime.chunks import in_chunks
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError, SiteError
from mmlens.values.scores import Scores
from mmlens.values.sites import shared

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

KEPT = ("head", "unit", "channel")
"""The axes after the positions that scores keep; dimensions are summed over."""


@needs("one pass")
@over_pairs()
@ordinary()
def attribution_patching(
    model: HookedModel,
    pair: Pair,
    metric: Metric,
    site: str | None = None,
    *,
    direction: str = "denoise",
    steps: int = 0,
    layer: Any = None,
    batch: int = 8,
    progress: Progress | bool | None = None,
) -> Scores:
    """The estimated change of the metric by each patch: Scores(layer, pos[, head or unit]).

    Args:
        metric, site: as in `patch`; the metric is differentiable.
        direction: "denoise" (the corrupt run is patched) or "noise" (the clean one).
        steps: points on the way from base to source (up to four times as many where they miss a
            part; `about` has "change", "missing" and "nodes" by layer); 0 takes the gradient at
            base alone.
        layer: some layers only.
        batch: points computed side by side (halved when memory runs out).
        progress: as in `patch`, layer by layer where there are `steps`.

    Raises:
        NumericsError: the metric has no gradient.
    """
    steps = count(steps, "steps", least=0, most=MOST, error=AddressError)
    batch = count(batch, "batch")
    base, source, told = _runs(model, pair, metric, direction)
    site = site or own_site(model, "resid_pre", base.soft).name
    where = place_of(model, base.soft, site, layer)
    need_gradient(model, where.site.tower)
    if where.site.name == "pixels":
        raise SiteError("Pixels are no positions here: patch them, or attribute 'soft_prompt'.")
    layers: list[int | None] = list(layers_at(model, where.site, layer))
    if not layers:
        raise AddressError(f"layer={layer!r} names no layer: write some, or None for all.")
    old, new = (standing(model, run.soft, where, layers) for run in (base, source))
    if steps:
        sums = {at: _integrated(model, base, where, at, old[at], new[at], metric, steps, batch)
                for at in tracked(layers, "attribution_patching", progress)}  # fmt: skip
        values = torch.stack([_reduced(sums[at].values, where) for at in layers])
        told |= {name: {str(at): getattr(one, name) for at, one in sums.items()}
                 for name in ("change", "missing", "nodes")}  # fmt: skip
    else:
        grads = gradients(model, base, where, layers, metric)
        values = torch.stack([_reduced((new[n] - old[n]) * grads[n], where) for n in layers])
    axes = ("layer", "pos", *([where.inner] if where.inner in KEPT else []))
    labels: dict[str, Any] = {"layer": tuple(layers), "pos": where.labels}
    if not where.site.layered:
        values, axes = values[0], axes[1:]
    told |= {"method": "attribution_patching", "site": site, "direction": direction, "steps": steps}
    told |= shared(where.site, getattr(model, "cfg", None)) | stays(base.soft, where.site)
    return Scores(
        finite(values, f"the attribution of {site!r}"), axes, labels, about(model, **told)
    )


def _reduced(product: Float[Tensor, "*dims"], where: Place) -> Float[Tensor, "pos ..."]:
    """change . gradient, summed over axes that are not addressed; pictures are concatenated."""
    product = product.float()
    product = product if where.site.in_lm else product.flatten(0, 1)
    return product if where.inner in ("unit", "channel") else product.sum(-1)


def gradients(
    model: HookedModel,
    base: Kept,
    where: Place,
    layers: list[int | None],
    metric: Metric,
) -> dict[int | None, torch.Tensor]:
    """d metric / d activation at a site of one run, all layers from one backward pass."""
    names = {hooking.names(model, where.site.at(layer))[0]: layer for layer in layers}
    taps: dict[int | None, torch.Tensor] = {}

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        live = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        taps[names[hook.name]] = live
        return live

    with torch.enable_grad(), model.hooks([(name, tap) for name in names]):
        logits = model.side_by_side(base.soft, 1, tower=where.site.tower)
    found = _grad(logits, metric, [taps[layer] for layer in layers])
    one = (lambda g: g[0]) if where.site.in_lm else where.by_position
    return {layer: one(g) for layer, g in zip(layers, found, strict=True)}


def _integrated(
    model: HookedModel,
    base: Kept,
    where: Place,
    layer: int | None,
    old: torch.Tensor,
    new: torch.Tensor,
    metric: Metric,
    steps: int,
    batch: int,
) -> Integral:
    """(new - old) times the mean gradient on the line from `old` to `new`."""
    name = hooking.names(model, where.site.at(layer))[0]
    in_lm = where.site.in_lm

    def logits_at(path: torch.Tensor) -> torch.Tensor:
        stands = path if in_lm else path.flatten(0, 1)
        with model.hooks([(name, lambda x, hook: where.as_before(stands.to(x), x))]):
            return model.side_by_side(base.soft, len(path), tower=where.site.tower)

    def integrate(nodes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        def work(start: int, stop: int) -> torch.Tensor:
            share = nodes[start:stop].reshape(-1, *[1] * old.ndim).to(old)
            with torch.enable_grad():
                path = (old + share * (new - old)).requires_grad_()
                logits = logits_at(path)
            grad = _grad(logits, metric, [path])[0]
            return (grad * weights[start:stop].reshape(-1, *[1] * old.ndim).to(grad)).sum(0)

        return (new - old) * sum(in_chunks(len(nodes), batch, work), torch.zeros_like(old))

    with torch.no_grad():
        ends = _numbers(logits_at(torch.stack([old, new])), metric)
    here = "" if layer is None else f" in layer {layer}"
    what = f"the attributions of {where.site.name!r}{here}"
    return complete(integrate, ends, steps, model.answer_dtype, what)


def _numbers(logits: Float[Tensor, "row d_vocab"], metric: Metric) -> Float[Tensor, " row"]:
    return torch.stack([measured(metric, row) for row in logits])


def _grad(
    logits: Float[Tensor, "row d_vocab"], metric: Metric, at: list[torch.Tensor]
) -> list[torch.Tensor]:
    """The gradient of the sum of the rows' metrics, exact enough in half precision too."""
    out, power = seed(logits, lambda many: differentiable(_numbers(many, metric)).sum())
    found = torch.autograd.grad(logits, at, grad_outputs=out, allow_unused=True)
    zeros = (torch.zeros_like(x) if g is None else g for g, x in zip(found, at, strict=True))
    return [wide(grad) / power for grad in zeros]
