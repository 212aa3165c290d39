"""Is the thing at its own patches? They are replaced by bare ground (Neo et al. 2025, section 3).

1. Caption the picture; explain the first noun of which the picture has one thing with a mask.
2. Replace positions of the picture, where they enter the first layer, by the mean of the bare
   ground of the same picture (`fill="mean"`), or by 0. Arms: "object", the thing's patches;
   "object + ring", with those around; "register", whose norm is above the mean by two standard
   deviations; "random", as many patches of bare ground as the ring arm has.
3. What is left of the noun's probability, and whether the model would still say it.

Positions: the picture's, before the first layer. Path: all of the language model. A noun that is
lost may also be lost because so many positions are alike: that is what "random" is for. What is
kept may be kept in other patches, where the encoder has carried it, or in the words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.activations import activations
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.neo.object_patches import numbers, object_patches
from mmlens.papers.tables import ExperimentError, finished, used
from mmlens.values.arguments import choice
from mmlens.values.edit import Edit
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "arm", "patches", "before", "probability", "said")
FILLS = ("mean", "zero")


def token_ablations(
    model: HookedVLM,
    sample: Sample,
    *,
    fill: str = "mean",
    share: float = 0.01,
    ring: int = 1,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """The noun's probability with positions of the picture replaced, by arm.

    Args:
        fill: what stands in their place, "mean" (of this picture's bare ground) or "zero".
        share: so much of a patch must lie under the thing's mask.
        ring: how many patches around the thing are taken with it.

    Returns:
        noun, arm, patches (how many), before and probability (without and with the replacement),
        said (whether the noun still leads), skipped, options.
    """
    choice(fill, "fill", FILLS, error=ExperimentError)
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    found = object_patches(model, sample, seen, share, ring)
    if isinstance(found, str) or seen is None:
        return asked.skipped(str(found))
    stream = activations(model, seen.soft, "resid_pre", layer=0, pos=Patch)
    new = stream.sel(pos=found.bare).mean("pos").values * (fill == "mean")
    norms = stream.values.float().norm(dim=-1)
    high = (norms > norms.mean() + 2 * norms.std()).nonzero()[:, 0].tolist()
    arms = {"object": found.thing, "object + ring": found.around,
            "register": [stream.of("pos")[at] for at in high],
            "random": found.drawn(asked.random())}  # fmt: skip
    with torch.no_grad():
        before, _ = numbers(model.run(seen.soft)[0, -1], seen.token)
        rows: list[dict[str, Any]] = []
        for arm, patches in arms.items():
            if not patches:
                continue
            edited = model.edit(Edit("resid_pre", new, layer=0, pos=patches))
            after, said = numbers(edited.run(seen.soft)[0, -1], seen.token)
            row = {"noun": seen.noun, "arm": arm, "patches": len(patches)}
            rows.append(row | {"before": before, "probability": after, "said": said})
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Share of the probability lost and of nouns still said, by arm, and beyond "random"."""
    rows = used(table, "arm", "before", "probability", "said")
    keys = rows[["sample", "arm"]]
    before, after = rows["before"].astype(float), rows["probability"].astype(float)
    lost = keys.assign(metric="lost", value=before - after, base=before)
    said = keys.assign(metric="said", value=rows["said"].astype(float), base=1.0)
    arms = [arm for arm in dict.fromkeys(rows["arm"]) if arm != "random"]
    long = with_differences(pd.concat([lost, said]), *((arm, "random") for arm in arms))
    out = summarise(long, ["arm", "metric"], draws=draws, seed=seed)
    return finished(out, "object tokens", table, draws=draws, seed=seed)
