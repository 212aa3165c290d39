"""Attribution through a denoising loop: gradient x activation at every step.

    g[s, k, p] = sum over branches of Z[s, k, p] * d y / d Z[s, k, p]

y is a number of what the model makes (the last latents, the decoded picture), Z[s, k, p] unit k at
position p in step s. The gradient passes all later steps: the scheduler's update, guidance, and the
denoiser that reads the changed latents again. To first order, silencing the unit at that step
lowers y by its score. The sum over steps is what silencing it throughout does.

Memory. Each step keeps its input alone, and its activations are computed again when the backward
pass comes to it (Chen et al. 2016): one step's graph at a time, for one more forward pass a step.
What is kept besides are the activations that are asked for. With `step=` the graph begins at the
first of the steps named; those before run without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.denoising_activations import Kept, axis_labels, stacked, unpadded
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import seed, wide
from mmlens.runtime.denoising import PROMPT, loop_now
from mmlens.values.addresses import places
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores
from mmlens.values.sites import Site
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_diffusion import HookedDiffusion

_OF_WORDS = ("hook_prompt_embeds", "cross_attn.hook_k", "cross_attn.hook_v")
_BY_WORD = ("cross_attn.hook_pattern", "cross_attn.hook_attn_scores")


def denoising_attribution(
    model: HookedDiffusion, prompt: Any, of: Any, target: Any, where: Site, layer: Any, step: Any
) -> Scores:
    """Gradient x activation at a site: Scores(step, layer, the site's axes).

    Where labels are words, which differ between the branches, scores are of the prompt's branch.

    Raises:
        AddressError: no such layer or step, or layers of different shapes.
        NumericsError: NaN in activations or gradients.
    """
    kept, told = _products(model, prompt, of, target, where, layer, step, alike=True)
    return stacked(kept, told, where)


@needs("denoise")
@ordinary()
def attribution_by_layer(
    model: HookedDiffusion,
    prompt: Any,
    of: Any = None,
    *,
    target: Any,
    site: str = "denoiser.neurons",
    layer: Any = None,
    step: Any = None,
) -> dict[int, Scores]:
    """What `attribute` gives of each layer, Scores(step, the site's axes), from one backward pass.

    The stages of a UNet have other grids and other numbers of units each.

    Raises:
        AddressError: the site has no layers. What `attribute` raises besides.
    """
    where = site_of(site)
    if not where.layered:
        raise AddressError(f"The site {site!r} has no layers: ask attribute(model, prompt, ...).")
    kept, told = _products(model, prompt, of, target, where, layer, step, alike=False)
    return {
        at: stacked({now: {at: by[at]} for now, by in kept.items()}, told, where, layer=at)
        for at in next(iter(kept.values()))
    }


def _products(
    model: HookedDiffusion,
    prompt: Any,
    of: Any,
    target: Any,
    where: Site,
    layer: Any,
    step: Any,
    *,
    alike: bool,
) -> tuple[Kept, dict[str, Any]]:
    """Gradient x activation by step and layer, and where it comes from.

    Args:
        alike: whether all layers must have one shape, which the first step shows.
    """
    reading, aimed = model.aim(prompt, of, target)
    every = list(hooking.layers(model, where)) if where.layered else [None]
    asked = where.layer if where.layer is not None else layer
    chosen: Any = [every[i] for i in places(every, asked, "layer")] if where.layered else every
    real = hooking.check_places(model, where, chosen)
    names = {where.at(one): one for one in chosen}
    worded = where.point.endswith((*_OF_WORDS, *_BY_WORD))
    values: dict[int, dict[int | None, torch.Tensor]] = {}
    roots: list[torch.Tensor] = []
    shapes: dict[int | None, tuple[int, ...]] = {}
    power = 1.0

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor | None:
        loop: Any = loop_now()
        now, at = loop.step, names[hook.name]
        count = loop.count() + int("branch" not in where.around)
        if now not in places(range(count), step, "step"):
            return None
        shapes[at] = tuple(tensor.shape)
        if alike and shapes[at] != next(iter(shapes.values())):
            raise AddressError(
                f"The layers {next(iter(shapes))} and {at} of {where.name!r} have different shapes:"
                " ask about one, as in layer=3, or attribution_by_layer(...) for all of them."
            )
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
            roots.append(tensor)
        rows = loop.branches(len(tensor))
        value, rows = tensor.detach(), rows[PROMPT] if worded else slice(None)
        values.setdefault(now, {}).setdefault(at, torch.zeros_like(value[0]))

        def multiply(grad: torch.Tensor) -> None:
            product = wide(value[rows]) * wide(grad[rows]) / power
            values[now][at] = finite(product.sum(0), f"the attribution of step {now}")

        tensor.register_hook(multiply)
        return tensor

    hooks = model.hooks([(name, tap) for name in names])
    with torch.enable_grad(), hooks, model.running(reading):  # as long as steps are recomputed
        made = model.made(reading, str(aimed.token), recompute=True)[0]
        finite(made.detach(), f"the {aimed.token} of {model.name!r}")
        if made.requires_grad:
            out, power = seed(made, aimed.number)
            torch.autograd.grad(made, list(roots), grad_outputs=out, allow_unused=True)
    kept = {
        now: {
            at: unpadded(Scores(products, real[at].axes, axis_labels(model, reading, real[at], at)))
            for at, products in by_layer.items()
        }
        for now, by_layer in values.items()
    }
    branch = ", branch='prompt'" if worded else ""
    told = about(
        model,
        method="attribute",
        prompt=reading,
        of=aimed.token,
        target=target,
        site=where.name,
        silencing=f"Edit({where.name!r}, 0.0, step=..., ...{branch})",
        tower=where.tower,
    )
    return kept, told
