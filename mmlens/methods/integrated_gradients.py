"""Integrated gradients of MLP units: attribution that adds up.

Per layer, the activations go on a straight line from a baseline b to their values z (Sundararajan
et al. 2017, eq. 1; along one layer's neurons as in Dai et al. 2022, eq. 2):

    IG = (z - b) * integral over t of dy/dz at b + t (z - b)

Its sum over a layer is exactly y(z) - y(b), which a test asserts; gradient x activation is its
one-step limit at t = 1.

Axes: (layer, pos, unit), signed. The integral is taken with Gauss-Legendre nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.autograd import ordinary
from mmlens.chunks import in_chunks
from mmlens.neurons import places
from mmlens.provenance import about
from mmlens.quadrature import gauss_legendre
from mmlens.scores import Scores
from mmlens.sites import SITES
from mmlens.targets import Number, aim, finite
from mmlens.tokens import rows

if TYPE_CHECKING:
    from mmlens.model import HookedVLM


@ordinary()
def integrated_gradients(
    model: HookedVLM,
    prompt: Any,
    of: str | int | None = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    baseline: float | Scores = 0.0,
    steps: int = 16,
    layers: Any = None,
    batch: int = 8,
) -> Scores:
    """Integrated gradients of the MLP units of each layer for one word: Scores(layer, pos, unit).

    Args:
        of, target, after: as in `attribute`.
        baseline: what a silenced unit is: a number, or Scores(layer, unit) such as a mean.
        steps: nodes of the quadrature.
        batch: steps computed side by side (halved when memory runs out).
    """
    soft, aimed = aim(model, prompt, of, target, after)
    chosen = sorted(places(range(model.cfg.n_layers), layers, "layer"))
    at = torch.tensor([aimed.position], device=model.lm.device)
    nodes, weights = gauss_legendre(steps, soft.vectors)
    out = []
    for layer in chosen:
        name = SITES["neurons"].at(layer)
        z = _read(model, soft, name)
        base = torch.as_tensor(
            baseline.sel(layer=layer).values if isinstance(baseline, Scores) else baseline
        ).to(z)
        delta = z - base

        def work(
            start: int, stop: int, name: str = name, base: Any = base, delta: Any = delta
        ) -> torch.Tensor:
            path = (base + nodes[start:stop, None, None].to(delta) * delta).requires_grad_()
            many = rows(soft, [0] * (stop - start))
            with (
                torch.enable_grad(),
                model.hooks(fwd_hooks=[(name, lambda x, hook: path.to(x))]),
                model._running(many, differentiable=False) as read,
            ):
                logits = model.lm.logits_at(read.ids.clamp(min=0), read.mask, at)
                total = torch.stack([aimed.number(row) for row in logits[:, 0]]).sum()
            grad = torch.autograd.grad(total, path)[0]
            return (grad * weights[start:stop, None, None].to(grad)).sum(0)

        mean = sum(in_chunks(steps, batch, work), torch.zeros_like(delta))
        out.append(finite(delta * mean, f"the integrated gradients of layer {layer}"))
    told = about(
        model,
        method="integrated_gradients",
        prompt=soft,
        of=aimed.token,
        target=target,
        steps=steps,
        baseline=baseline,
    )
    labels = {"layer": tuple(chosen), "pos": soft.labels[0]}
    return Scores(torch.stack(out), ("layer", "pos", "unit"), labels, told)


def _read(model: HookedVLM, soft: Any, name: str) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    with torch.no_grad():
        model.run_with_hooks(
            soft, fwd_hooks=[(name, lambda x, hook: kept.append(x.detach()))], return_type=None
        )
    return kept[0][0]
