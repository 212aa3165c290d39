"""In which layers does the last position read a thing's patches? (Neo et al. 2025, section 5)

1. Caption the picture; explain the first noun of which the picture has one thing with a mask.
2. Cut attention in windows of a third of the layers, early to late, and in all layers. Arms:
   "object + ring -> last"; "others -> last", all patches but these; "random -> last", as many
   patches of bare ground; "patches -> last row", the last row of the picture's patches, which could
   gather what the picture shows.
3. What is left of the noun's probability, and whether the model would still say it.

Positions: as the arms say. Path: attention in these layers alone; what another layer reads later is
not cut, so that a window without effect may be one of several that do the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.knockout import knockout
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.neo.object_patches import numbers, object_patches
from mmlens.papers.tables import finished, used
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "arm", "layers", "patches", "before", "probability", "said")
NAMES = ("early", "early-mid", "mid", "mid-late", "late")


def windows(n_layers: int) -> dict[str, range]:
    """Five windows of a third of the layers, evenly spaced, and all layers."""
    width = max(1, round(n_layers / 3))
    starts = [round(at * (n_layers - width) / (len(NAMES) - 1)) for at in range(len(NAMES))]
    found = {name: range(at, at + width) for name, at in zip(NAMES, starts, strict=True)}
    return {**found, "all": range(n_layers)}


def window_effects(
    model: HookedVLM,
    sample: Sample,
    *,
    share: float = 0.01,
    ring: int = 1,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """The noun's probability with attention cut, by arm and window of layers.

    Args:
        share: so much of a patch must lie under the thing's mask.
        ring: how many patches around the thing are taken with it.

    Returns:
        noun, arm, layers (the window's name), patches (how many are cut off), before and
        probability (without and with the cut), said (whether the noun still leads), skipped,
        options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    found = object_patches(model, sample, seen, share, ring)
    if isinstance(found, str) or seen is None:
        return asked.skipped(str(found))
    every = [label for label in seen.soft.labels[0] if isinstance(label, Patch)]
    last = [one for one in every if one.row == max(each.row for each in every)]
    cuts = {"object + ring -> last": (found.around, -1),
            "others -> last": (found.others, -1),
            "random -> last": (found.drawn(asked.random()), -1),
            "patches -> last row": ([one for one in every if one not in last], last)}  # fmt: skip
    with torch.no_grad():
        before, _ = numbers(model.run(seen.soft)[0, -1], seen.token)
        rows: list[dict[str, Any]] = []
        for arm, (source, destination) in cuts.items():
            for name, layers in windows(model.cfg.n_layers).items():
                edited = model.edit(knockout(source, destination, layers))
                after, said = numbers(edited.run(seen.soft)[0, -1], seen.token)
                row = {"noun": seen.noun, "arm": arm, "layers": name, "patches": len(source)}
                rows.append(row | {"before": before, "probability": after, "said": said})
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Share of the probability lost and of nouns still said, by arm and window."""
    rows = used(table, "arm", "layers", "before", "probability", "said")
    keys = rows[["sample", "arm", "layers"]]
    before, after = rows["before"].astype(float), rows["probability"].astype(float)
    lost = keys.assign(metric="lost", value=before - after, base=before)
    said = keys.assign(metric="said", value=rows["said"].astype(float), base=1.0)
    pair = ("object + ring -> last", "random -> last")
    long = with_differences(pd.concat([lost, said]), pair)
    out = summarise(long, ["arm", "metric", "layers"], draws=draws, seed=seed)
    return finished(out, "windows", table, draws=draws, seed=seed)
