"""What the caption loses without a neuron: the probability of every token of it.

The caption stays as it is (each token is predicted from the tokens before it), the neuron is 0 at
every position, and nothing is approximated: a gradient only predicts this number. Neurons share
batches, a row each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.causal.silencing import silenced
from mmlens.model.prompt_tokens import rows
from mmlens.model.targets import Target, finite
from mmlens.runtime.chunks import in_chunks
from mmlens.values.labels import Neuron
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Silent = Sequence[Neuron]


def probabilities(
    model: HookedVLM,
    soft: SoftPrompt,
    targets: Sequence[Target],
    silent: Sequence[Silent],
    batch: int = 16,
) -> Float[Tensor, "variant token"]:
    """The probability of every target without the neurons of each variant (none: as it is).

    Args:
        soft: the prompt and the caption up to its last token, as `aim_caption` gives it.
        targets: of the logit, one per token.
        silent: for each variant, the neurons that are silenced together.
        batch: variants computed side by side (halved when memory runs out).
    """
    positions = torch.tensor([t.position for t in targets], device=model.lm.device)
    ids = torch.tensor([_id_of(model, one) for one in targets], device=model.lm.device)

    def work(start: int, stop: int) -> torch.Tensor:
        units = torch.zeros(stop - start, model.cfg.n_layers, model.cfg.d_mlp, dtype=torch.bool)
        for row, several in zip(units, silent[start:stop], strict=True):
            for neuron in several:
                row[neuron.layer, neuron.unit] = True
        copies = rows(soft, [0] * (stop - start))
        with torch.no_grad(), silenced(model, soft, units):
            logits = model.run(copies, at=positions)
        prob = finite(logits.float(), "the logits without a neuron").softmax(-1)
        return prob.gather(-1, ids.expand(len(prob), -1)[..., None])[..., 0].cpu()

    return torch.cat(list(in_chunks(len(silent), batch, work)))


def _id_of(model: HookedVLM, target: Target) -> int:
    """The token whose logit a target reads: of the numbers 0, 1, 2, ... it reads the id."""
    return int(target.number(torch.arange(model.W_U.shape[1])))
