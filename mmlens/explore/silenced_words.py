"""Ablation of neurons under a fixed caption: the probability of each of its tokens.

The caption is not changed (each token is predicted from the tokens before it), the neuron is 0 at
every position, and nothing is approximated, unlike a gradient. Neurons share batches, a row each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.causal.silencing import number_after, units_of
from mmlens.model.targets import Target
from mmlens.values.labels import Neuron
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Silent = Sequence[Neuron]


def probabilities(
    model: HookedVLM, soft: SoftPrompt, targets: Sequence[Target], silent: Sequence[Silent]
) -> Float[Tensor, "variant token"]:
    """The probability of every target without the neurons of each variant.

    Args:
        soft: the prompt and the caption up to its last token, as `aim_caption` gives it.
        targets: of the logit, one per token.
        silent: for each variant, the neurons that are ablated together; may be none.
    """
    positions = torch.tensor([t.position for t in targets], device=model.lm.device)
    ids = torch.tensor([_id_of(model, one) for one in targets], device=model.lm.device)

    def prob(logits: torch.Tensor) -> torch.Tensor:
        own = ids.expand(len(logits), -1)[..., None]
        return logits.softmax(-1).gather(-1, own)[..., 0]

    return number_after(model, soft, prob, [units_of(some) for some in silent], at=positions)


def _id_of(model: HookedVLM, target: Target) -> int:
    """The token whose logit a target reads, found by applying it to 0, 1, 2, ..."""
    return int(target.number(torch.arange(model.W_U.shape[1])))
