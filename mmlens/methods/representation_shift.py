"""How concepts move when a model is changed: trained on, edited, or steered.

Khayatan et al. (2025, "Analyzing Fine-tuning Representation Shift for Multimodal LLMs Steering",
section 4). a_m and b_m are the streams of the same prompts in two models (`stream_before` of each),
u_k the concepts of the first (`concepts`). Each prompt belongs to the concept that is strongest in
it, A_k, and

    shift[k]        = mean over m in A_k of (b_m - a_m)
    consistency[k]  = mean cosine of the single shifts, over pairs in A_k

A shift that is the same in all its prompts (consistency near 1) can be undone, or made, by adding
it (`patching.steer`); of shifts that only average to it, nothing follows.

Positions and path: those of the streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mmlens.methods.concepts import WordConcepts
from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd


def concept_shifts(before: Scores, after: Scores, found: WordConcepts) -> Scores:
    """The mean shift of the prompts of each concept: Scores(concept, dim); 0 where none belongs.

    Args:
        before, after: Scores(prompt, dim) of the same prompts in two models.
        found: the concepts of the first.

    Raises:
        AddressError: other prompts.
    """
    moved, owner = _moved(before, after, found)
    n = len(found.directions.values)
    member = torch.nn.functional.one_hot(owner, n).to(moved)
    mean = member.T @ moved / member.sum(0).clamp(min=1)[:, None]
    told = {**found.directions.about, "method": "concept_shifts"}
    return Scores(mean.float(), ("concept", "dim"), {}, told)


def shift_consistency(before: Scores, after: Scores, found: WordConcepts) -> pd.DataFrame:
    """How alike the shifts of the prompts of each concept are: one row per concept that has two.

    Returns:
        Columns concept, prompts (how many), consistency (-1 to 1), length (of the mean shift over
        the mean length of the streams before).
    """
    import pandas as pd

    moved, owner = _moved(before, after, found)
    size = float(before.values.double().norm(dim=-1).mean())
    rows = []
    for concept in owner.unique().tolist():
        own = moved[owner == concept]
        if len(own) > 1:
            unit = torch.nn.functional.normalize(own, dim=-1)
            n = len(own)
            alike = (unit.sum(0).pow(2).sum() - unit.pow(2).sum()) / (n * (n - 1))
            rows.append((concept, n, float(alike), float(own.mean(0).norm()) / size))
    return pd.DataFrame(rows, columns=["concept", "prompts", "consistency", "length"])


def _moved(before: Scores, after: Scores, found: WordConcepts) -> tuple[torch.Tensor, torch.Tensor]:
    """The shift of each prompt, and the concept that it belongs to."""
    instance(found, "found", WordConcepts, "what concepts(stream) returns")
    for name, one in (("before", before), ("after", after)):
        instance(one, name, Scores, "what stream_before(model, prompts, of) returns")
    owner = found.activations.values.argmax(-1)
    alike = before.axes == after.axes == ("prompt", "dim") and before.shape == after.shape
    if not alike or len(owner) != before.shape[0]:
        raise AddressError(
            f"{before!r} and {after!r} are not the streams of the {len(owner)} prompts of these"
            " concepts: ask stream_before of the same prompts in both models."
        )
    return after.values.double() - before.values.double(), owner
