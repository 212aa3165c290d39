"""Attribution of what is explained to pixels, features or soft-prompt vectors of the picture.

For the value x of the picture at a site, and a baseline b (by default its mean over the picture, so
that attributions measure how a patch differs from the rest):

    gradient               (x - b) dy/dx at x                              (one backward pass)
    integrated_gradients   (x - b) * integral over t of dy/dx at b + t (x - b)    (Sundararajan et
                           al. 2017, eq. 1); sums to y(x) - y(b), which a test asserts
    occlusion              y(x) - y(x with b at the patch)    (Zeiler & Fergus 2014; one forward
                           pass per patch), the true effect of each patch alone

Axes: (pos), labelled by Patch, summed over a patch's pixels or dimensions; signed. It complements
`attribute`, which finds the neurons that raise the word; this finds the patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.over_lists import over_lists
from mmlens.methods.picture_places import alone, baseline_of, known, place_in
from mmlens.methods.quadrature import MOST, complete
from mmlens.model.capabilities import need_gradient, needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

ATTRIBUTIONS = ("gradient", "integrated_gradients", "occlusion")


@needs("pictures")
@over_lists
@ordinary()
def attribute_picture(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    at: str | None = None,
    attribution: str = "integrated_gradients",
    target: str | Number = "logit",
    after: str | None = None,
    baseline: float | None = None,
    steps: int = 16,
    batch: int = 8,
) -> Scores:
    """The contribution of each patch of the picture to one word (class, similarity): Scores(pos).

    Args:
        prompt, of, target, after: as in `attribute`.
        at: "soft_prompt" (what the language model reads, the default of a bridge), "features" (the
            encoder's output) or "pixels" (through the encoder, summed over each patch's square; the
            default of other models).
        attribution: "gradient", "integrated_gradients" or "occlusion".
        baseline: the value of a patch without information, a number at that site (for preprocessed
            pixels, 0 is usually mid-grey); None for the mean over the picture.
        steps: nodes of the quadrature of integrated gradients (up to four times as many where they
            miss a part); the result's `about` has their "sum" beside the true "change" y(x) - y(b),
            and a warning is given where more than a hundredth is missing.
        batch: pictures computed side by side (halved when memory runs out).

    Raises:
        SiteError: no such `at` or `attribution`, or what is explained does not depend on it.
        PromptError: a prompt without a picture, or one whose picture is unknown.
        TargetError: as in `attribute`.
    """
    known(attribution, ATTRIBUTIONS, "attribution")
    steps = count(steps, "steps", most=MOST, error=AddressError)
    differentiated = attribution != "occlusion"

    def check(tower: str) -> None:
        if differentiated:
            need_gradient(model, tower)

    place = place_in(model, prompt, of, target, after, at, check)
    at, x = place.at, place.read()
    base = baseline_of(x, baseline, at)
    extra: dict[str, Any] = {}
    if attribution == "occlusion":
        with torch.no_grad():
            whole = place.numbers(x[None])
        values = whole - place.shown(x, base, alone(len(x) * place.count(x)), batch)
    elif attribution == "integrated_gradients":
        with torch.no_grad():
            ends = place.numbers(torch.stack([base, x]))
        found = complete(
            lambda nodes, weights: (x - base) * place.gradient(x, base, nodes, weights, batch),
            ends, steps, model.answer_dtype, f"the attributions at {at}",
        )  # fmt: skip
        values = place.patches(found.values)
        extra = {"steps": steps, "sum": float(values.sum()), "change": found.change}
        extra |= {"nodes": found.nodes}
    else:
        values = place.patches((x - base) * place.gradient(x, base, *_end(x), batch))
    values = place.depends(values)
    told = about(model, method="attribute_picture", prompt=place.soft, of=place.aimed.token,
                 target=target, at=at, attribution=attribution,
                 baseline="mean" if baseline is None else baseline, **extra)  # fmt: skip
    return Scores(finite(values.flatten(), f"the attribution at {at}"), ("pos",),
                  {"pos": place.labels()},
                  told)  # fmt: skip


def _end(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The one node of the plain gradient: t = 1."""
    return like.new_ones(1), like.new_ones(1)
