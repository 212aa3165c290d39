"""The words that a unit raises on one prompt, measured: what the logits lose without it.

    effect[k] = logits as they are - logits with Edit("neurons", 0.0, k), at one position

Nothing is approximated and no sign is chosen: the unit is silenced at every position, with the
activation that it has there. A unit costs a row of a batch. Of each row only the best words are
kept, so memory is that of a batch of rows of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mmlens.causal.silencing import masks, silenced
from mmlens.model.prompt_tokens import rows
from mmlens.model.targets import finite
from mmlens.runtime.chunks import in_chunks
from mmlens.values.labels import Neuron
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

ROUNDING = 16
"""So many times the number format's eps of the largest logit is no effect, but rounding."""


def effects(
    model: HookedVLM,
    soft: SoftPrompt,
    neurons: Sequence[Neuron],
    k: int,
    *,
    position: int = -1,
    batch: int = 16,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `k` words that each neuron raises most: ids, logits and shares, each [neuron, k].

    Args:
        position: where the logits are read, an index of the prompt; by default its end.
        batch: neurons silenced side by side (halved when memory runs out).

    Returns:
        Int ids, Float logits (as it is, minus without; 0 where no more than rounding moves), and
        Float shares of their softmax over the vocabulary.
    """
    at = torch.tensor([position % soft.ids.shape[1]], device=model.lm.device)
    words = model.lm.n_words
    numbers = [torch.tensor([n.layer * model.cfg.d_mlp + n.unit]) for n in neurons]
    nothing = torch.empty(0, dtype=torch.long)

    def work(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One row of a batch has all its units: batches of other shapes round otherwise."""
        copies, off = rows(soft, [0] * (stop - start + 1)), [nothing, *numbers[start:stop]]
        with torch.no_grad(), silenced(model, soft, masks(model, off)):
            logits = model.run(copies, at=at)[:, 0, :words].float()
        lost = logits[:1] - finite(logits, "the logits without a neuron")[1:]
        rounding = ROUNDING * torch.finfo(model.lm.dtype).eps * float(logits[0].abs().max())
        lost = torch.where(lost.abs() > rounding, lost, 0.0)
        best = lost.topk(min(k, words))
        shares = lost.softmax(-1).gather(-1, best.indices)
        return best.indices.cpu(), best.values.cpu(), shares.cpu()

    found = list(in_chunks(len(neurons), batch, work))
    ids, values, shares = (torch.cat(part) for part in zip(*found, strict=True))
    return ids, values, shares
