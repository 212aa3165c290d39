"""The tokens that a unit raises on one prompt, measured by ablating it.

    effect[k] = logits as they are - logits with Edit("neurons", 0.0, k), at one position

Nothing is approximated and no sign is chosen: the unit is ablated at every position, and the layers
before it are not recomputed. Only the top tokens of each unit are kept, so memory is that of `SOME`
rows of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mmlens.causal.silencing import number_after, units_of
from mmlens.model.targets import finite
from mmlens.towers.language.measured import said
from mmlens.values.labels import Neuron
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

ROUNDING = 64
"""Differences below this multiple of the dtype's eps times the largest logit are rounding: rows in
batches of other shapes differ by a few eps."""
SOME = 64
"""The number of units whose logits are held at once."""


def effects(
    model: HookedVLM,
    soft: SoftPrompt,
    neurons: Sequence[Neuron],
    k: int,
    *,
    position: int = -1,
    batch: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `k` words that each neuron raises most: ids, logits and shares, each [neuron, k].

    Args:
        position: where the logits are read, an index of the prompt; by default its end.
        batch: neurons per batch (default: as many as fit into the free memory).

    Returns:
        Int ids, Float logits (with the unit minus without it; 0 where the difference is only
        rounding), and Float shares of their softmax over the vocabulary.
    """
    at = torch.tensor([position % soft.ids.shape[1]], device=model.lm.device)
    words = model.lm.n_words
    read = lambda logits: logits[:, 0, :words]  # noqa: E731
    ids, values, shares = [], [], []
    for start in range(0, len(neurons), SOME):
        units = [{}, *(units_of([neuron]) for neuron in neurons[start : start + SOME])]
        logits = said(number_after(model, soft, read, units, at=at, batch=batch))
        lost = logits[:1] - finite(logits, "the logits without a neuron")[1:]
        rounding = ROUNDING * torch.finfo(model.lm.dtype).eps * float(logits[0].abs().max())
        lost = torch.where(lost.abs() > rounding, lost, 0.0)
        best = lost.topk(min(k, words))
        ids.append(best.indices)
        values.append(best.values)
        shares.append(lost.softmax(-1).gather(-1, best.indices))
    return torch.cat(ids), torch.cat(values), torch.cat(shares)
