"""Which way does a thing take to its word: through its own patches to the last position?

1. Caption the picture; explain the first noun of which the picture has one thing with a mask.
2. Cut the attention of the last position (arm by arm) to the thing's patches, and to as many
   patches of bare ground, in all layers (`patching.knockout`; Geva et al. 2023, Neo et al. 2025).
   The patches of bare ground lie under no thing at all.
3. What is left of the noun's probability, and whether the model would still say it.

"last" cuts the last position alone; "text" cuts every position of the words, because a word may
hear of the thing from an earlier word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.causal import measures
from mmlens.causal.masked_patches import patches_under
from mmlens.datasets.sample import Sample
from mmlens.methods.knockout import knockouts
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.mmn.questions.regions import UNMASKED, named_mask
from mmlens.papers.tables import UNNAMED, finished, used
from mmlens.values.addresses import places
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "destination", "arm", "patches", "before", "probability", "lost", "said")
CROWDED = "less bare ground than patches of the thing"


def route_effects(
    model: HookedVLM,
    sample: Sample,
    *,
    share: float = 0.01,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """The noun's probability with routes from the thing, and from bare ground, cut.

    Args:
        share: so much of a patch must lie under the thing's mask; by default any touch counts.

    Returns:
        noun, destination ("last", "text"), arm ("object", "background"), patches (how many),
        before and probability (without and with the cut), lost (1 - probability / before), said
        (whether the noun still leads), skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    mask = seen and named_mask(sample, seen.noun)
    if seen is None or mask is None:
        return asked.skipped(UNMASKED if seen else UNNAMED)
    picture = seen.prompt.prompts[0].pictures[0]
    thing = patches_under(model, mask, picture, share)
    things = torch.stack([t.mask for t in sample.things if t.mask is not None]).any(0)
    covered = set(patches_under(model, things, picture, 1e-6))
    labels = seen.soft.labels[0]
    bare = [one for one in labels if isinstance(one, Patch) and one not in covered]
    if not thing or len(bare) < len(thing):
        return asked.skipped(CROWDED if thing else UNMASKED)
    drawn = torch.randperm(len(bare), generator=asked.random())[: len(thing)]
    arms = {"object": thing, "background": [bare[i] for i in sorted(drawn.tolist())]}
    last = len(labels) - 1
    destinations = {
        "last": [last],
        "text": list(range(max(places(labels, Patch, "pos")) + 1, last + 1)),
    }

    routes = {f"{arm} {destination}": (patches, positions) for arm, patches in arms.items()
              for destination, positions in destinations.items()}  # fmt: skip
    asks = {"probability": measures.probability(model, seen.token),
            "rank": measures.rank(model, seen.token)}  # fmt: skip
    cut = knockouts(model, seen.soft, asks, routes)
    before = float(cut.about["clean"]["probability"])
    rows = []
    for destination in destinations:
        for arm, patches in arms.items():
            route = f"{arm} {destination}"
            value = cut.sel(metric="probability", route=route).item()
            leads = cut.sel(metric="rank", route=route).item() == 0
            row: dict[str, Any] = {"noun": seen.noun, "destination": destination, "arm": arm}
            row |= {"patches": len(patches), "before": before, "probability": value}
            rows.append(row | {"lost": 1 - value / before, "said": float(leads)})
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Share of the probability lost and of nouns still said, by arm and destination: intervals.

    "lost" is 1 - mean probability / mean before, over the same pictures.
    """
    rows = used(table, "destination", "arm", "before", "probability", "said")
    keys = rows[["sample", "arm", "destination"]]
    before, after = rows["before"].astype(float), rows["probability"].astype(float)
    lost = keys.assign(metric="lost", value=before - after, base=before)
    said = keys.assign(metric="said", value=rows["said"].astype(float), base=1.0)
    long = with_differences(pd.concat([lost, said]), ("object", "background"))
    out = summarise(long, ["arm", "metric", "destination"], draws=draws, seed=seed)
    return finished(out, "routes", table, draws=draws, seed=seed)
