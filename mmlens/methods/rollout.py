"""Attention rollout: how much of each input there is in what a position holds in the end.

Abnar and Zuidema (2020, arXiv 2005.00928), section 3, eq. 1: the residual stream carries one half,
the mean A of a layer's heads the other, and layers multiply:

    R_0 = I,    R_l = (A_l + I) / 2 R_{l-1}

Across, a position holds half of its stream and half of the picture keys it attends to, which
nothing is written to:  R_l = R_{l-1} / 2,  K_l = (K_{l-1} + A_l) / 2.

Each row of [K, R] sums to 1. Values, MLPs and norms are left out, and the word that is explained
counts only by its position: a map of where information could come from, not of what moved the word.

Axes: (pos), from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.attention_routes import Attention, everything, relevance
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.runtime.autograd import ordinary
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@needs()
@ordinary()
def rollout(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    after: str | None = None,
    at: str | None = None,
) -> Scores:
    """The share of each patch and word in what the answer is read from, by attention: Scores(pos).

    Args:
        of: the word whose position is asked about, as in `attribute`; None for the last position
            of the prompt (of an encoder: its answer).
        after: as in `attribute`.
        at: "soft_prompt" (what the language model reads, the default of a bridge) or "pixels"
            (on through the encoder, where its patches are the positions; the default of others).

    Raises:
        CapabilityError: a layer without attention, or one that attends within windows.
        TargetError: as in `attribute`; a unit.
    """
    target = everything if of is None else "logit"
    reading, aimed = model.aim(prompt, of, target, after)
    (labels, values), at = relevance(
        model, model.reading_tower(prompt), reading, aimed, at, rolled, grad=False
    )
    told = about(model, method="rollout", prompt=reading, of=aimed.token, at=at)
    return Scores(values, ("pos",), {"pos": tuple(labels)}, told)


def rolled(attention: Sequence[Attention]) -> tuple[Tensor, Tensor | None]:
    """R Float[crop, pos, pos] and K Float[crop, pos, key] of layers in running order."""
    first = attention[0].pattern
    eye = torch.eye(first.shape[-2]).to(first)
    R, K = eye.expand(len(first), -1, -1), None
    for one in attention:
        A = one.pattern.mean(1)
        if one.across:
            R, K = R / 2, A / 2 if K is None else (K + A) / 2
        else:
            half = (A + eye) / 2
            R, K = half @ R, None if K is None else half @ K
    return R, K
