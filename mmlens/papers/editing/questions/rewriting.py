"""Does a word that is rewritten on one picture hold beyond it? (Pan et al. 2024, section 5)

The first `k` neurons of `contributions` are rewritten on a picture so that another noun leads by
`margin` where its own was said (`patching.rewrite`: the least change). Then are asked: the same
picture, another picture of the thing (whether each says the new word), and pictures of other things
(whether each says its own). Beside it as many others of the same layers, those that are active
first: any active units can be made to say any word of the one picture.

Positions: the one where the noun is said. Path: all that follows. "size" is the length of the
change over that of the rows that are changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.methods.activations import activations
from mmlens.methods.contributions import contributions
from mmlens.methods.rewrite import rewrite
from mmlens.methods.top_neurons import top_neurons
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.editing.groups import Group
from mmlens.papers.editing.said import edits_that_fail, keep_their_words, says
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import neurons_of, numbers_of, partners, shuffle
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.tables import finished, used
from mmlens.values.arguments import instance
from mmlens.values.errors import NumericsError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("arm", "metric", "value")
OWN, OTHER_UNITS = "first of `contributions`", "others of their layers"
SAME, SECOND, THINGS, SIZE = "the same picture", "another picture", "other things", "size"
RANGES: dict[str, tuple[float, float]] = dict.fromkeys((SAME, SECOND, THINGS), (0.0, 1.0))
FEW = "a layer has too few other neurons"


def rewritten_word(
    model: HookedVLM,
    sample: Group,
    *,
    k: int = 20,
    margin: float = 2.0,
    steps: int = 20,
    prompt: str = PROMPT,
    seed: int = 0,
) -> pd.DataFrame:
    """What is said after one noun was rewritten, by arm.

    Args:
        sample: a group of one noun (`groups.grouped`).
        k: how many neurons. margin, steps: as in `patching.rewrite`.
        seed: of the other neurons.

    Returns:
        arm ("first of `contributions`", "others of their layers"), metric ("the same picture",
        "another picture", "other things": the share that says the new word, and its own; "size"),
        value, skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    instance(sample, "sample", Group, "one of papers.editing's groups")
    ((first, second, word),) = sample.edits
    softs = [one.soft(model, prompt) for one in (first, second)]
    best: Any = top_neurons(contributions(model, softs[0], first.token, after=""), k)
    numbers = numbers_of(model, list(best["neuron"]))
    others = _active_partners(model, softs[0], numbers, asked.random())
    if others is None:
        return asked.skipped(FEW)
    rows = []
    for arm, units in ((OWN, numbers), (OTHER_UNITS, others)):
        try:
            with edits_that_fail():
                changed = rewrite(
                    model, softs[0], neurons_of(model, units), word, margin=margin, steps=steps
                )
        except NumericsError as error:
            return asked.skipped(str(error))
        rows += [(arm, metric, says(changed, soft, word))
                 for metric, soft in zip((SAME, SECOND), softs, strict=True)]  # fmt: skip
        kept = keep_their_words(model, changed, sample.others, prompt)
        rows += [(arm, THINGS, value) for value in kept]
        rows.append((arm, SIZE, float(changed.provenance["rewritten"]["norm"])))
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Means over nouns by arm and metric, and the differences of the arms."""
    long = values(table)
    both = with_differences(long, (OWN, OTHER_UNITS))
    out = summarise(both, ["arm", "metric"], ranges=RANGES, draws=draws, seed=seed)
    return finished(out, "a word rewritten", table, draws=draws, seed=seed)


def values(table: pd.DataFrame) -> pd.DataFrame:
    """The rows sample, arm, metric, value of those that were asked."""
    rows = used(table, *COLUMNS)
    return rows[["sample", "arm", "metric"]].assign(value=rows["value"].astype(float))


def _active_partners(
    model: HookedVLM, soft: Any, numbers: torch.Tensor, random: torch.Generator
) -> torch.Tensor | None:
    """As many other units of the same layers at random, active ones first."""
    silent = activations(model, soft, "neurons", pos=-1).values.cpu() <= 0
    order = shuffle(model, random)
    late = silent.gather(1, order).long().argsort(dim=1, stable=True)
    return partners(model, numbers, order.gather(1, late))
