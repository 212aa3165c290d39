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
from mmlens.methods.quadrature import MOST, complete
from mmlens.model import hooking, readouts
from mmlens.model.capabilities import need_gradient, needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import Number, Target, finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import pull
from mmlens.runtime.chunks import in_chunks
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError, PromptError, SiteError, nearest
from mmlens.values.labels import LM
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

PLACES = ("soft_prompt", "features", "pixels")
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
    at = at or ("soft_prompt" if LM in model.towers else "pixels")
    _known(at, PLACES, "at")
    _known(attribution, ATTRIBUTIONS, "attribution")
    steps = count(steps, "steps", most=MOST, error=AddressError)
    hooking.tower_at(model, SITES[at])
    if attribution != "occlusion":
        need_gradient(model, SITES[at].tower)
    soft, aimed = model.aim(prompt, of, target, after)
    if not any(one.pictures for one in soft.prompts):
        raise PromptError(
            "There is no picture in this prompt, so no place in it: give a Prompt with a picture."
        )
    place = _Place(model, soft, aimed, at)
    x = place.read()
    base = _baseline(x, baseline, at)
    extra: dict[str, Any] = {}
    if attribution == "occlusion":
        values = _occlusion(place, x, base, batch)
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
    if at == "features" and not values.any():
        raise SiteError(
            f"What is explained does not depend on the patches' features of {model.name!r}: a token"
            " beside them is read. Write at='pixels'."
        )
    reader = model.image_reader
    placed = LM in model.towers and (at == "soft_prompt" or reader.placed)
    placed = placed and not (at == "pixels" and reader.has_others)
    laid = SITES[at if at == "features" else "soft_prompt" if placed else "pixels"]
    labels = tuple(p for picture in model.picture_rows(soft.prompts, laid) for p in picture)
    told = about(model, method="attribute_picture", prompt=soft, of=aimed.token, target=target,
                 at=at, attribution=attribution, baseline="mean" if baseline is None else baseline,
                 **extra)  # fmt: skip
    return Scores(finite(values.flatten(), f"the attribution at {at}"), ("pos",), {"pos": labels},
                  told)  # fmt: skip


class _Place:
    """One site of one prompt's pictures: read it, replace its values, compute the quantity."""

    def __init__(self, model: HookedModel, soft: Any, aimed: Target, at: str) -> None:
        self.model, self.soft, self.aimed, self.at = model, soft, aimed, at
        vision: Any = model.towers["vision"]
        picture = next(picture for one in soft.prompts for picture in one.pictures)
        laid = vision.grid if at == "features" else model.image_reader.grid(vision, picture)
        self.name, self.grid = SITES[at].at(), laid

    def read(self) -> torch.Tensor:
        """The value at the site: [picture, patch, dim], or [picture, channel, y, x] of pixels."""
        with torch.no_grad(), capture(self.model, [self.name], torch.Tensor.detach) as kept:
            self.model.run_to(SITES[self.at].tower, self.soft)
        return kept[self.name].float()

    def numbers(self, values: torch.Tensor) -> torch.Tensor:
        """y for each of `values` [run, picture, ...]: Float[run]."""
        return self._numbers(self._answers(values))

    def _numbers(self, answers: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.aimed.number(row) for row in answers])

    def _answers(self, values: torch.Tensor) -> torch.Tensor:
        """What y is a function of, for each of `values`: Float[run, ...]."""
        put = (self.name, lambda x, hook: values.flatten(0, 1).to(x))
        with self.model.hooks(fwd_hooks=[put]):
            return readouts.side_by_side(
                self.model, self.soft, self.aimed, len(values), SITES[self.at].tower
            )

    def gradient(self, x: torch.Tensor, base: torch.Tensor, nodes: torch.Tensor,
                 weights: torch.Tensor, batch: int) -> torch.Tensor:  # fmt: skip
        """The weighted mean of dy/dx at `base + t (x - base)` over the nodes t."""

        def work(start: int, stop: int) -> torch.Tensor:
            t, w = (n[start:stop].reshape(-1, *[1] * x.ndim) for n in (nodes, weights))
            path = (base + t * (x - base)).detach().requires_grad_()
            with torch.enable_grad():
                answers = self._answers(path)
            return (w * pull(answers, lambda many: self._numbers(many).sum(), path)).sum(0)

        return sum(in_chunks(len(nodes), batch, work), torch.zeros_like(x))

    def patches(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over each patch: Float[picture, patch]."""
        if self.at != "pixels":
            return values.sum(-1)
        squares = self.squares(values).flatten()
        flat = values.sum(1).flatten(1)
        out = flat.new_zeros(len(flat), self.grid[0] * self.grid[1])
        return out.index_add_(1, squares, flat)

    def squares(self, pixels: torch.Tensor) -> torch.Tensor:
        """The number of the patch that each pixel lies in: Int[y, x]."""
        (rows_, cols), (high, wide) = self.grid, pixels.shape[-2:]
        row = torch.arange(high, device=pixels.device) * rows_ // high
        col = torch.arange(wide, device=pixels.device) * cols // wide
        return row[:, None] * cols + col


def _occlusion(place: _Place, x: torch.Tensor, base: torch.Tensor, batch: int) -> torch.Tensor:
    """y(x) - y(x with the baseline in one patch): Float[picture * patch]."""
    count = place.grid[0] * place.grid[1] if place.at == "pixels" else x.shape[1]

    def work(start: int, stop: int) -> torch.Tensor:
        runs = x[None].repeat(stop - start, *[1] * x.ndim)
        for run, index in enumerate(range(start, stop)):
            picture, patch = divmod(index, count)
            if place.at == "pixels":
                covered = place.squares(x) == patch
                runs[run, picture] = torch.where(covered, base[picture], x[picture])
            else:
                runs[run, picture, patch] = base.expand_as(x)[picture, patch]
        return place.numbers(runs)

    with torch.no_grad():
        whole = place.numbers(x[None])
        return whole - torch.cat(list(in_chunks(len(x) * count, batch, work)))


def _baseline(x: torch.Tensor, baseline: float | None, at: str) -> torch.Tensor:
    """The baseline's values, of x's shape."""
    if baseline is not None:
        return torch.full_like(x, baseline)
    over = (-2, -1) if at == "pixels" else (-2,)
    return x.mean(over, keepdim=True).expand_as(x)


def _end(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The one node of the plain gradient: t = 1."""
    return like.new_ones(1), like.new_ones(1)


def _known(name: str, names: tuple[str, ...], option: str) -> None:
    if name not in names:
        raise SiteError(
            f"attribute_picture({option}={name!r}): there is no such {option}:"
            f" {nearest(name, names)}"
        )
