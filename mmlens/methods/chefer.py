"""Chefer's relevance: attention weighted by its gradient, through self- and cross-attention.

Chefer, Gur and Wolf (2021, arXiv 2103.15679), section 3. With the pattern A of a layer's heads h
and the gradient there of what is explained,

    A' = mean_h (dy/dA * A)+                                                             (eq. 5)
    self-attention:    R <- R + A' R,    K <- K + A' K                                   (eq. 6, 7)
    cross-attention:   K <- K + norm(R)^T A'                                             (eq. 10)
    norm(R) = (R - I) / rowsum(R - I) + I                                                (eq. 8, 9)

from R = I, K = 0; the keys of pictures keep their own identity, as nothing is written to them. The
word counts, by the gradients; what lowers it is cut off in every layer, so a map is never negative
and says nothing of evidence against.

Axes: (pos), not negative; in the row of the position that is read, its own entry begins with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.attention_routes import Attention, relevance
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number
from mmlens.runtime.autograd import ordinary
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@needs()
@ordinary()
def chefer(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    at: str | None = None,
) -> Scores:
    """The relevance of each patch and word to one word (class, similarity): Scores(pos).

    Args:
        of, target, after: as in `attribute`.
        at: as in `rollout`; through the encoder, gradients are those at the encoder's patterns.

    Raises:
        CapabilityError: a layer without attention, one that attends within windows, or whose
            pattern is only read.
        TargetError: as in `attribute`; a unit.
    """
    reading, aimed = model.aim(prompt, of, target, after)
    (labels, values), at = relevance(
        model, model.reading_tower(prompt), reading, aimed, at, propagated, grad=True
    )
    told = about(model, method="chefer", prompt=reading, of=aimed.token, target=target, at=at)
    return Scores(values, ("pos",), {"pos": tuple(labels)}, told)


def propagated(attention: Sequence[Attention]) -> tuple[Tensor, Tensor | None]:
    """R Float[crop, pos, pos] and K Float[crop, pos, key] of layers in running order."""
    first = attention[0].pattern
    eye = torch.eye(first.shape[-2]).to(first)
    R, K = eye.expand(len(first), -1, -1), None
    for one in attention:
        assert one.grad is not None
        A = (one.grad * one.pattern).clamp(min=0).mean(1)
        if one.across:
            added = _normalised(R, eye).mT @ A
            K = added if K is None else K + added
        else:
            R, K = R + A @ R, None if K is None else K + A @ K
    return R, K


def _normalised(R: Tensor, eye: Tensor) -> Tensor:
    """Each row's relevance besides itself, scaled to sum to 1, and itself."""
    rest = R - eye
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total.clamp(min=torch.finfo(R.dtype).tiny), rest) + eye
