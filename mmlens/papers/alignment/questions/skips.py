"""What is lost where the MLPs pass the picture's positions by? (their section 5, "skip FFN")

What the MLP writes at the picture's positions is set to 0, in the later half of the layers or in
the earlier, and for comparison at the positions of words. What is left of the probability of the
first noun of the caption, where it was said.

Positions: the picture's, or those of words. Path: all that follows. That nothing is lost says that
this word does not need these MLPs there, not that they hold nothing of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.tables import UNNAMED, finished, used
from mmlens.values.edit import Edit
from mmlens.values.labels import Marker, Patch, Token

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("arm", "layers", "before", "probability")
LATER, EARLIER, OF_WORDS = "picture, later half", "picture, earlier half", "words, later half"
_KINDS: dict[str, Any] = {"picture": (Patch, Marker), "words": Token}


def skipped_mlps(
    model: HookedVLM,
    sample: Sample,
    *,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The noun's probability without what MLPs write at some positions, by arm.

    Returns:
        arm, layers (how many), before and probability (without and with the skip), skipped,
        options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    half = model.cfg.n_layers // 2
    halves = {"later": range(half, model.cfg.n_layers), "earlier": range(half)}
    labels = seen.soft.labels[0]
    prob = lambda one: float(one.run(seen.soft)[0, -1].float().softmax(-1)[seen.token])  # noqa: E731
    rows = []
    with torch.no_grad():
        before = prob(model)
        for arm in (LATER, EARLIER, OF_WORDS):
            kind, when = arm.split(", ")
            layers = halves[when.split()[0]]
            places = [at for at, label in enumerate(labels) if isinstance(label, _KINDS[kind])]
            edits = [Edit("mlp_out", 0.0, layer=layer, pos=places) for layer in layers]
            rows.append((arm, len(layers), before, prob(model.edit(*edits))))
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """The share of the probability that is lost, by arm, and the earlier half against the later."""
    rows = used(table, *COLUMNS)
    before = rows["before"].astype(float)
    long = rows[["sample", "arm"]].assign(
        metric="lost", value=before - rows["probability"].astype(float), base=before
    )
    both = with_differences(long, (EARLIER, LATER), (OF_WORDS, LATER))
    out = summarise(both, ["arm", "metric"], draws=draws, seed=seed)
    return finished(out, "skipped MLPs", table, draws=draws, seed=seed)
