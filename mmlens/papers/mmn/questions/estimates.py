"""What is attribution patching worth here: its rank correlation with true patching.

1. Caption the picture; explain the first noun of which the picture has one thing with a mask.
2. The clean prompt is the picture and the caption up to the noun, token by token as it was said; in
   the corrupt one the thing is painted over with the mean colour of the rest (`patching.erased`).
3. Patch every (layer, patch) of the residual stream, the noun's logit being the metric, truly
   (`patching.patch`) and by estimate (`patching.attribution_patching`, with and without steps).
4. Spearman's rank correlation of the two over these places.

Positions of words are left out: between two prompts that differ in their pictures alone, the words
of the first layer don't differ at all, and places where both are 0 say nothing of the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mmlens.causal import measures
from mmlens.causal.corrupters import erased
from mmlens.causal.pairs import Pair
from mmlens.datasets.sample import Sample
from mmlens.methods.attribution_patching import attribution_patching
from mmlens.methods.patch import patch
from mmlens.model.targets import extend, one
from mmlens.papers.bootstrap import DRAWS, summarise
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.mmn.questions.regions import UNMASKED, named_mask
from mmlens.papers.tables import UNNAMED, finished, used
from mmlens.values.arguments import count, several
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "arm", "places", "spearman")


def estimated(
    model: HookedVLM,
    sample: Sample,
    *,
    site: str = "resid_pre",
    steps: Sequence[int] = (0, 8),
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """How well attribution patching ranks the places of one picture.

    Args:
        site: where, as in `patching.patch`; every layer and patch (and head or unit) of it.
        steps: points of the integrated gradient, an arm each; 0 is the plain gradient.

    Returns:
        noun, arm ("steps 0", ...), places (how many), spearman, skipped, options.
    """
    steps = [count(n, "steps", least=0, most=1000) for n in several(steps, "steps")]
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    mask = seen and named_mask(sample, seen.noun)
    if seen is None or mask is None:
        return asked.skipped(UNMASKED if seen else UNNAMED)
    without = one(model, Prompt(erased(mask)(sample.image), prompt))
    said = seen.soft.ids[0, without.ids.shape[1] :].tolist()
    pair = Pair(seen.soft, extend(model, without, said))
    metric = measures.logit(model, seen.token)
    guesses = [attribution_patching(model, pair, metric, site, steps=n) for n in steps]
    true = patch(model, pair, metric, site, by=guesses[0].axes, pos=Patch)
    moved = pd.Series((true.values - float(true.about["corrupt"])).flatten().numpy())
    rows = []
    for n, guess in zip(steps, guesses, strict=True):
        ranks = pd.Series(guess.sel(pos=Patch).values.flatten().numpy()).rank()
        row = {"noun": seen.noun, "arm": f"steps {n}", "places": len(moved)}
        rows.append(row | {"spearman": ranks.corr(moved.rank())})
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Spearman's correlation by arm, with the interval over pictures."""
    rows = used(table, "arm", "spearman")
    long = rows.melt(["sample", "arm"], ["spearman"], "metric", "value")
    out = summarise(long, ["arm", "metric"], draws=draws, seed=seed)
    return finished(out, "estimates", table, draws=draws, seed=seed)
