"""E7: one picture, its five strongest neurons, where they look and what they say (Fig. 2 and 4).

The heat map is the mean activation of the top five units on the patches, cut at the 0.95 percentile
(`maps.masks_of`); beside it stand the two most probable tokens of each unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.decode import decode
from mmlens.methods.top_neurons import top_neurons
from mmlens.model.provenance import about
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import COLUMNS, scored, signs, with_words
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.mmn.questions.unit_masks import PERCENTILE, SIZE, masks_of, unit_maps
from mmlens.papers.tables import UNNAMED
from mmlens.values.labels import Patch
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


def picture_sheet(
    model: HookedVLM,
    sample: Sample,
    *,
    top: int = 5,
    tokens: int = 2,
    keep: str = "all",
    k: int = 100,
    percentile: float = PERCENTILE,
    size: int = SIZE,
    point: str = "pre",
    target: str = "logit",
    gain: bool = False,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> dict[str, pd.DataFrame | Scores]:
    """The data of a sheet; a picture whose caption names nothing has the table `sheet` alone.

    Args:
        top: how many units.
        tokens: how many tokens of each.
        keep: of the units of the top `k` pairs "all", or only the "interpretable" ones.

    Returns:
        sheet: rank, neuron, patch (its best), score, sign, words, interpretable, caption, noun,
        skipped, options. sheet_map: Scores(pos), the mean activation per patch. sheet_mask:
        Scores(y, x), 1 above the percentile, for the picture as the encoder sees it.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return {"sheet": asked.skipped(UNNAMED)}
    found = top_neurons(scored(model, seen, point, target), k, active=signs(model, seen))
    best: Any = found.drop_duplicates("neuron")
    best = with_words(best, decode(model, best, tokens, gain=gain))
    if keep == "interpretable":
        best = best[best["interpretable"]]
    best = best.head(top).reset_index(drop=True)
    if not len(best):
        return {"sheet": asked.skipped("no unit says words")}
    best = best.assign(rank=range(len(best)), caption=seen.caption, noun=seen.noun)
    grid = unit_maps(model, seen.soft, best["neuron"].tolist()).mean(0)
    patches = tuple(label for label in seen.soft.labels[0] if isinstance(label, Patch))
    told = about(model, method="sheet", noun=seen.noun, top=top, percentile=percentile)
    mask = masks_of(grid, size, percentile).to(torch.uint8)
    return {
        "sheet": asked.answered(best[list(COLUMNS)]),
        "sheet_map": Scores(grid.flatten(), ("pos",), {"pos": patches}, told),
        "sheet_mask": Scores(mask, ("y", "x"), about=told),
    }
