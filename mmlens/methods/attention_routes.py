"""Relevance that travels by attention: layer by layer from what is read back to what was put in.

Rollout and Chefer's rules share this frame. A rule turns the attention of the layers, in running
order, into two matrices: R [position, position], how much of each position's input there is in what
it holds after the last layer, and K [position, key] for the picture keys of cross-attention, which
nothing is written to. What is explained reads one row of them in a language model. An encoder's
answer is read from the positions of its last layer on which it depends (one class token, or all
that are pooled, each counting the same).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.gradients_at import At, gradients_at
from mmlens.model import hooking
from mmlens.model.capabilities import need_gradient
from mmlens.model.targets import Target, finite
from mmlens.values.arguments import choice
from mmlens.values.errors import CapabilityError, PromptError, SiteError, TargetError
from mmlens.values.labels import LM, Label, Patch
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@dataclass(frozen=True)
class Attention:
    """The attention of one layer in one run.

    Attributes:
        pattern: Float[crop, head, query, key].
        grad: of what is explained at the pattern, or None where that was not asked for.
        across: whether its keys are pictures beside the positions.
    """

    pattern: Tensor
    grad: Tensor | None
    across: bool


Rule = Callable[[Sequence[Attention]], tuple[Tensor, Tensor | None]]
"""From attention in running order to R Float[crop, pos, pos] and K Float[crop, pos, key]."""
Given = tuple[list[Label], Tensor]
"""Labels and the relevance of each."""
AT = ("soft_prompt", "pixels")


def everything(output: Tensor) -> Tensor:
    """What is explained where only the position counts, and not the word: the sum of the output."""
    return output.sum()


def relevance(
    model: HookedModel,
    tower: str,
    reading: Any,
    target: Target,
    at: str | None,
    rule: Rule,
    grad: bool,
) -> tuple[Given, str]:
    """The relevance of every position (and key) by a rule, and where it was asked.

    Args:
        tower: which one reads the prompt (`model.reading_tower`).
        reading, target: what `model.aim` returned.
        at: "soft_prompt" or "pixels"; None for what the model reads first.
        grad: whether the rule needs gradients of the patterns.

    Raises:
        CapabilityError: a layer holds no pattern, or one of windows; positions are no patches.
        TargetError: a unit is explained, which is read in the middle of the model.
    """
    if target.at is not None:
        raise TargetError(
            "Relevance by attention goes from the answer back through all layers, so no unit can be"
            " explained by it: write of=' dog', a class or a text, or use grad_cam."
        )
    last = tower
    at = choice(at or ("soft_prompt" if last == LM else "pixels"), "at", AT, error=SiteError)
    if last != LM and at == "soft_prompt":
        raise CapabilityError(
            f"{model.name!r} puts no picture into a prompt: leave at= out, or write at='pixels'."
        )
    through = last == LM and at == "pixels"
    if through and grad:
        need_gradient(model, "vision")
    towers = [*(["vision"] if through else []), last]
    if through and not any(prompt.pictures for prompt in reading.prompts):
        raise PromptError("There is no picture in this prompt: give a Prompt with one.")
    points = {tower: pattern_points(model, tower) for tower in towers}
    names = [name for tower in towers for name, _ in points[tower]]
    ends = [] if last == LM else [end_of(model, last)]
    kept, _ = gradients_at(
        model, reading, target, [*(names if grad else []), *ends], [] if grad else names
    )
    per_tower = {tower: [_one(model, kept[n], n, a, grad) for n, a in points[tower]]
                 for tower in towers}  # fmt: skip
    if last == LM:
        given = _of_words(reading, target, *rule(per_tower[LM]))
    else:
        rows = _rows(model, reading, last, per_tower[last])
        read = read_at(model, kept[ends[0]])
        R, _ = rule(per_tower[last])
        given = list(rows[0]), R[0, read].mean(0)
    if through:
        given = _through(model, reading, given, per_tower["vision"], rule)
    return (given[0], finite(given[1], "the relevance")), at


def pattern_points(model: HookedModel, tower: str) -> list[tuple[str, bool]]:
    """The patterns of a tower in running order, and whether each is across.

    Raises:
        CapabilityError: a layer holds none.
    """
    prefix = "" if tower == LM else f"{tower}."
    sites = [(SITES[f"{prefix}pattern"], False)]
    sites += [(SITES["cross_pattern"], True)] if tower == LM else []
    known, found = hooking.points(model), []
    for layer in hooking.layers(model, SITES[f"{prefix}resid_pre"]):
        here = [(site.at(layer), across) for site, across in sites if site.at(layer) in known]
        if not here:
            raise CapabilityError(
                f"Layer {layer} of the tower {tower!r} of {model.name!r} never holds an attention"
                " pattern (a convolution, a state space or a fused kernel), so no relevance passes"
                " through it: write relevance.grad_cam(...) or relevance.occlusion(...)."
            )
        found += here
    return found


def end_of(model: HookedModel, tower: str) -> str:
    """The last point of the residual stream of an encoder."""
    site = SITES[f"{tower}.resid_post"]
    return site.at(list(hooking.layers(model, site))[-1])


def _one(model: HookedModel, at: At, name: str, across: bool, grad: bool) -> Attention:
    if grad and at.grad is None:
        raise CapabilityError(
            f"What is explained does not depend on {name!r} of {model.name!r} (its pattern is read"
            " only, or comes after what is read): write relevance.rollout(...), which needs no"
            " gradient."
        )
    return Attention(at.value, at.grad, across)


def _rows(
    model: HookedModel, reading: Any, tower: str, attention: Sequence[Attention]
) -> tuple[tuple[Label, ...], ...]:
    """The labels of an encoder's positions, one row per crop, as its patterns have them.

    Raises:
        CapabilityError: they attend within windows, or in another order.
    """
    site = SITES[f"{tower}.resid_pre"]
    layer = list(hooking.layers(model, site))[-1]
    rows = model.picture_rows(reading.prompts, site, layer)
    shapes = {(len(one.pattern), *one.pattern.shape[-2:]) for one in attention}
    if shapes != {(len(rows), len(rows[0]), len(rows[0]))} if rows else True:
        raise CapabilityError(
            f"The attention of the tower {tower!r} of {model.name!r} is not from each of its"
            f" {len(rows[0]) if rows else 0} positions to each (windows, or several pictures in one"
            " sequence): write relevance.grad_cam(...) or relevance.occlusion(...)."
        )
    return rows


def read_at(model: HookedModel, end: At) -> Tensor:
    """The positions of the last layer on which the answer depends."""
    if end.grad is None or not bool(end.grad.any()):
        raise CapabilityError(
            f"What is explained does not depend on the last layer of {model.name!r}: nothing is"
            " relevant to it."
        )
    return end.grad[0].flatten(1).abs().amax(1).nonzero()[:, 0]


def _of_words(reading: Any, target: Target, R: Tensor, K: Tensor | None) -> Given:
    """The row of the explained position: positions, and before them the picture keys."""
    labels, values = list(reading.labels[0]), R[0, target.position]
    if K is None:
        return labels, values
    return [*reading.picture_keys.labels[0], *labels], torch.cat([K[0, target.position], values])


def _through(
    model: HookedModel, reading: Any, given: Given, attention: Sequence[Attention], rule: Rule
) -> Given:
    """The relevance of patches of the prompt, handed on through the encoder that made them."""
    labels, values = given
    rows = _rows(model, reading, "vision", attention)
    mine = {label for label in labels if isinstance(label, Patch)}
    theirs = {label for row in rows for label in row if isinstance(label, Patch)}
    if mine != theirs:
        raise CapabilityError(
            f"The positions of {model.name!r} are not the patches of its encoder one by one (they"
            " are merged, cut or queried), so relevance cannot be handed on: leave at= out, or"
            " write relevance.occlusion(..., at='pixels')."
        )
    known = dict(zip(labels, values, strict=True))
    zero = values.new_zeros(())
    R, _ = rule(attention)
    last = torch.stack([torch.stack([known.get(one, zero) for one in row]) for row in rows])
    inside = torch.einsum("cp,cpq->cq", last, R)
    rest = [label for label in labels if not isinstance(label, Patch)]
    words = torch.stack([known[one] for one in rest])
    return [*(one for row in rows for one in row), *rest], torch.cat([inside.flatten(), words])
