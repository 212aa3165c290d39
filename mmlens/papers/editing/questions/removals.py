"""Is a word lost with its vector? (PROJECTAWAY, Jiang et al. 2025, section 5)

The vector of the first noun of the caption is projected out of the stream at the picture's patches
(`patching.project_away`), and what is left of its probability is read where it was said. Beside it
the vector of a word that is not in the picture, since the vectors of all words share much of their
length, and a random direction.

Positions: the picture's patches. Path: all that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.project_away import project_away
from mmlens.methods.steer import remove
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule, names_thing, nouns, rule_for
from mmlens.papers.tables import UNNAMED, finished, used
from mmlens.towers.language.tokenization import word
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("arm", "before", "probability")
OWN_VECTOR, OTHER_VECTOR, RANDOM = "its own vector", "another word's vector", "a random direction"
NO_OTHER = "every other word names something in the picture"


def removed_word(
    model: HookedVLM,
    sample: Sample,
    *,
    names: Sequence[str],
    layer: int = 2,
    text_layer: int = 1,
    amount: float = 1.0,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """The noun's probability without a vector at the picture's patches, by arm.

    Args:
        names: of which another word is drawn, as they are read, with their space.
        layer, text_layer, amount: as in `patching.project_away` (the paper's: 2, 1, 1.5).
        seed: of the other word and the random direction.

    Returns:
        arm ("its own vector", "another word's vector", "a random direction"), before and
        probability (without and with the removal), skipped, options.
    """
    names = list(names)
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    said = [*nouns(seen.caption, rule_for(model, noun)), *sample.names]
    absent = [one for one in names if not any(_same(one.strip(), other) for other in said)]
    if not absent:
        return asked.skipped(NO_OTHER)
    random = asked.random()
    other = absent[int(torch.randint(len(absent), (1,), generator=random))]
    noise = torch.randn(model.cfg.d_model, generator=random)
    away = {"layer": layer, "text_layer": text_layer, "amount": amount}
    edits = {
        OWN_VECTOR: project_away(model, word(model.lm, seen.token), **away),
        OTHER_VECTOR: project_away(model, other, **away),
        RANDOM: [remove("resid_post", noise, pos=Patch, layer=layer, amount=amount, positive=True)],
    }
    prob = lambda one: float(one.run(seen.soft)[0, -1].float().softmax(-1)[seen.token])  # noqa: E731
    with torch.no_grad():
        before = prob(model)
        rows = [(arm, before, prob(model.edit(*some))) for arm, some in edits.items()]
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """The share of the probability that is lost, by arm, and own vector less each of the others."""
    pairs = ((OWN_VECTOR, OTHER_VECTOR), (OWN_VECTOR, RANDOM), (OTHER_VECTOR, RANDOM))
    both = with_differences(values(table), *pairs)
    out = summarise(both, ["arm", "metric"], draws=draws, seed=seed)
    return finished(out, "a word removed", table, draws=draws, seed=seed)


def values(table: pd.DataFrame) -> pd.DataFrame:
    """The rows sample, arm, metric, value (what is lost), base (what there was)."""
    rows = used(table, *COLUMNS)
    before = rows["before"].astype(float)
    return rows[["sample", "arm"]].assign(
        metric="lost", value=before - rows["probability"].astype(float), base=before
    )


def _same(one: str, other: str) -> bool:
    return names_thing(one, other) or names_thing(other, one)
