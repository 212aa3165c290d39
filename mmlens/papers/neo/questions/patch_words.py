"""Do a thing's patches say its name, and in which layer? (Neo et al. 2025, section 4)

1. Caption the picture; explain the first noun of which the picture has one thing with a mask.
2. Read every patch after every layer by the logit lens.
3. The share of the thing's patches whose most probable token is the noun's first token; and the
   same of all patches of bare ground, where it should not be.

Positions: the picture's patches. Path: none, what is read is what a patch holds, not what the model
uses: picture positions are not trained to say anything, and the lens reads early layers badly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.logit_lens import logit_lens
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.neo.object_patches import object_patches
from mmlens.papers.tables import finished, used
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "layer", "arm", "patches", "share")


def word_shares(
    model: HookedVLM,
    sample: Sample,
    *,
    share: float = 0.01,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The share of patches whose most probable token is the noun, by layer and arm.

    Args:
        share: so much of a patch must lie under the thing's mask.

    Returns:
        noun, layer, arm ("object", "background"), patches (how many), share, skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    found = object_patches(model, sample, seen, share, 1)
    if isinstance(found, str) or seen is None:
        return asked.skipped(str(found))
    read: Any = logit_lens(model, seen.soft, k=1, pos=Patch)
    read["says"] = read["token"] == model.to_string([seen.token])
    rows = []
    for arm, patches in (("object", found.thing), ("background", found.bare)):
        each = read[read["pos"].isin(patches)].groupby("layer")["says"].mean()
        rows += [
            {"noun": seen.noun, "layer": layer, "arm": arm, "patches": len(patches), "share": said}
            for layer, said in each.items()
        ]
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """The share of patches that say the noun, by layer and arm, and the difference of both."""
    rows = used(table, "layer", "arm", "share")
    long = rows[["sample", "arm", "layer"]].assign(
        metric="share", value=rows["share"].astype(float)
    )
    long = with_differences(long, ("object", "background"))
    out = summarise(long, ["arm", "metric", "layer"], draws=draws, seed=seed)
    return finished(out, "patch words", table, draws=draws, seed=seed)
