"""Integrated gradients of MLP units: attribution that adds up.

Per layer, the activations move along a straight line from a baseline b to their values z
(Sundararajan et al. 2017, eq. 1; along one layer's neurons as in Dai et al. 2022, eq. 2):

    IG = (z - b) * integral over t of dy/dz at b + t (z - b)

Its sum over a layer is y(z) - y(b), which is checked at each call (see
`mmlens.methods.quadrature`); gradient x activation is its one-step limit at t = 1.

Axes: (layer, pos, unit), signed; of an encoder of convolutions (layer, pos, channel), where the
positions are the cells of one layer's map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.causal.places import Place, layers_at, place_of
from mmlens.causal.variants import need_units, standing
from mmlens.methods.over_lists import over_lists
from mmlens.methods.quadrature import MOST, Integral, complete
from mmlens.model import readouts
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site
from mmlens.model.targets import Number, Target
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import pull
from mmlens.runtime.chunks import in_chunks
from mmlens.values.arguments import count, number
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@needs("one pass")
@over_lists
@ordinary()
def integrated_gradients(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    baseline: float | Scores = 0.0,
    steps: int = 16,
    layer: Any = None,
    batch: int = 8,
) -> Scores:
    """Integrated gradients of the MLP units of each layer for one word: Scores(layer, pos, unit).

    Args:
        prompt, of, target, after: as in `attribute`.
        baseline: the value of an ablated unit: a number, or Scores(layer, unit) such as a mean.
        steps: nodes of the quadrature; up to four times as many, concentrated near the baseline, in
            layers where their sum misses the change by more than a hundredth (with a norm after the
            MLP, the quantity changes only close to the baseline).
        batch: steps computed side by side (halved when memory runs out).

    Returns:
        The scores; `about` has by layer the "change" y(z) - y(b), what is "missing" of it in their
        sum, and the number of "nodes". A warning is given where more than a hundredth is missing.
    """
    soft, aimed = model.aim(prompt, of, target, after)
    steps = count(steps, "steps", most=MOST, error=AddressError)
    batch = count(batch, "batch")
    site = own_site(model, "neurons", prompt)
    chosen = sorted(layers_at(model, site, layer))
    if not chosen:
        raise AddressError(f"layer={layer!r} names no layer: write some, or None for all.")
    need_units(model, site, chosen)
    where = place_of(model, soft, site.name, chosen)
    found = {n: _one_layer(model, soft, aimed, where, n, baseline, steps, batch) for n in chosen}
    told = about(
        model,
        method="integrated_gradients",
        prompt=soft,
        of=aimed.token,
        target=target,
        steps=steps,
        baseline=baseline,
        **{
            name: {layer: getattr(one, name) for layer, one in found.items()}
            for name in ("change", "missing", "nodes")
        },
    )
    told |= {} if site.in_lm else {"tower": site.tower}
    labels = {"layer": tuple(chosen), "pos": where.labels}
    values = torch.stack([one.values for one in found.values()])
    return Scores(values, ("layer", "pos", *where.behind), labels, told)


def _one_layer(
    model: HookedModel,
    soft: Any,
    aimed: Target,
    where: Place,
    layer: int,
    baseline: float | Scores,
    steps: int,
    batch: int,
) -> Integral:
    """(z - b) times the mean gradient at the units of one layer: [pos, unit]."""
    name, tower = where.site.at(layer), where.site.tower
    found = standing(model, soft, where, [layer])[layer]
    z = found if where.site.in_lm else found[0]  # one picture or text
    base = _base(baseline, layer, z)
    delta = z - base

    def numbers(logits: torch.Tensor) -> torch.Tensor:
        return torch.stack([aimed.number(row) for row in logits])

    def logits_at(path: torch.Tensor) -> torch.Tensor:
        put = (name, lambda x, hook: where.as_before(path.to(x), x))
        with model.hooks(fwd_hooks=[put]):
            return readouts.side_by_side(model, soft, aimed, len(path), tower)

    def integrate(nodes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        def work(start: int, stop: int) -> torch.Tensor:
            with torch.enable_grad():
                path = base + nodes[start:stop, None, None].to(delta) * delta
                logits = logits_at(path.requires_grad_())
            grad = pull(logits, lambda many: numbers(many).sum(), path)
            return (grad * weights[start:stop, None, None].to(grad)).sum(0)

        return delta * sum(in_chunks(len(nodes), batch, work), torch.zeros_like(delta))

    with torch.no_grad():
        ends = numbers(logits_at(torch.stack([base, z])))
    what = f"the integrated gradients of layer {layer}"
    return complete(integrate, ends, steps, model.answer_dtype, what)


def _base(baseline: float | Scores, layer: int, z: torch.Tensor) -> torch.Tensor:
    """The baseline as Float[pos, unit]."""
    if isinstance(baseline, Scores):
        values = (baseline.sel(layer=layer) if "layer" in baseline.axes else baseline).values
    else:
        values = torch.tensor(number(baseline, "baseline"))
    try:
        return values.to(z).expand_as(z)
    except RuntimeError:
        raise AddressError(
            f"The baseline {baseline!r} does not fit units of shape {tuple(z.shape)} (pos, unit):"
            " give a number, or Scores(layer, unit) such as patching.mean_over(...)."
        ) from None
