"""E3: do the neurons look at the thing that they name? (MMN 3.2, Fig. 5, Fig. S.1)

1. The 100 pairs of highest g[k, c] of a picture; their different units.
2. A_k on the patches -> bilinear to the picture's size -> the pixels above the 0.95 percentile ->
   IoU with the thing's mask (`maps`). Things: those annotated once in the picture.
3. The same for as many random units of the same layers, and for the mean map of the top units.

The mask always covers 5 %, so IoU <= min(f, .05) / max(f, .05) for a thing of area share f: that
ceiling is reported beside it. The paper takes every picture with a single annotation of a category;
`things="named"` keeps only things that the explained noun names.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.decode import decode
from mmlens.methods.top_neurons import top_neurons
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import (
    neurons_of,
    numbers_of,
    partners,
    scored,
    shuffle,
)
from mmlens.papers.mmn.questions.explained import PROMPT, Rule, names_thing
from mmlens.papers.mmn.questions.unit_masks import (
    PERCENTILE,
    SIZE,
    ceiling,
    iou,
    masks_of,
    true_mask,
    unit_maps,
)
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.values.arguments import choice
from mmlens.values.labels import Neuron

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = (
    ("concept", "named", "arm", "rank", "neuron", "interpretable", "iou", "area", "ceiling")
)  # fmt: skip
MASKLESS = "no thing that is annotated once has a mask"
UNMASKED = "the noun is no thing that is annotated once with a mask"


def unit_regions(
    model: HookedVLM,
    sample: Sample,
    *,
    k: int = 100,
    average: int = 6,
    percentile: float = PERCENTILE,
    size: int = SIZE,
    point: str = "pre",
    target: str = "logit",
    rank_by: str = "pair",
    gain: bool = False,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """How well the top units' masks, and those of random units, meet each thing of a picture.

    Args:
        k: pairs, as in `top_units`.
        average: so many top units are averaged into the mean map.
        size: side of the picture that maps and masks are resized to.

    Returns:
        concept, named (whether the explained noun is its name), arm ("attributed", "random", "mean
        map", "mean map of random"), rank, neuron, interpretable (in the random arm that of the
        attributed unit whose partner it is), iou, area, ceiling, skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    alone = single_things(sample)
    if not alone:
        return asked.skipped(MASKLESS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    best = top_neurons(scored(model, seen, point, target), k, rank_by=rank_by)
    units = list(dict.fromkeys(best["neuron"]))
    others = _random_units(model, units, asked.random())
    maps = unit_maps(model, seen.soft, [*units, *others])
    told = _arms(units, others, decode(model, units, gain=gain)["interpretable"].tolist())
    means = [maps[: len(units)][:average].mean(0), maps[len(units) :][:average].mean(0)]
    masks = masks_of(torch.cat([maps, torch.stack(means)]), size, percentile)
    rows = []
    for name, mask in alone.items():
        truth = true_mask(model, mask, size)
        about = {"concept": name, "named": names_thing(seen.noun, name)}
        about |= {"area": float(truth.float().mean()), "ceiling": ceiling(truth, percentile)}
        values = iou(masks, truth).tolist()
        rows += [{**about, **arm, "iou": v} for arm, v in zip(told, values, strict=True)]
    return asked.answered(rows)


def summary(
    table: pd.DataFrame,
    *,
    things: str = "all",
    keep: str = "all",
    over: str = "mean",
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """IoU by arm and concept ("all": over every picture): experiment, arm, metric, concept, mean...

    Args:
        things: "all" that are annotated once, or those "named" by the explained noun.
        keep: "all" units, or the "interpretable" ones and their random partners (the mean maps are
            those of all units either way).
        over: the "mean" or the "max" over a picture's units.
    """
    choice(things, "things", ("all", "named"), error=ExperimentError)
    choice(keep, "keep", ("all", "interpretable"), error=ExperimentError)
    choice(over, "over", ("mean", "max"), error=ExperimentError)
    rows = used(table, "concept", "named", "arm", "iou", "ceiling")
    rows = rows[rows["named"].astype(bool)] if things == "named" else rows
    if keep == "interpretable":
        rows = rows[rows["interpretable"].astype(bool) | rows["arm"].str.startswith("mean map")]
    if not len(rows):
        raise ExperimentError(f"No rows are left with {things=} and {keep=}.")
    keys = ["sample", "concept", "arm"]
    values = rows.groupby(keys, sort=False).agg({"iou": over, "ceiling": "first"}).reset_index()
    long: Any = values.melt(keys, ["iou", "ceiling"], "metric", "value")
    long["metric"] = long["metric"].replace({"iou": "IoU"})
    long = pd.concat([long, long.assign(concept="all")], ignore_index=True)
    long = with_differences(long, ("attributed", "random"), ("mean map", "mean map of random"))
    once = long[(long["metric"] != "ceiling") | (long["arm"] == "attributed")]
    out = summarise(once, ["arm", "metric", "concept"], draws=draws, seed=seed)
    return finished(out, "E3", table, things=things, keep=keep, over=over, draws=draws, seed=seed)


def single_things(sample: Sample) -> dict[str, torch.Tensor]:
    """What is annotated once in a picture, by name, where its mask is known and not empty."""
    times = Counter(thing.name for thing in sample.things)
    return {
        thing.name: thing.mask
        for thing in sample.things
        if times[thing.name] == 1 and thing.mask is not None and bool(thing.mask.any())
    }


def named_mask(sample: Sample, noun: str) -> torch.Tensor | None:
    """The mask of the thing that a noun names, if it is annotated once."""
    masks = single_things(sample)
    return next((mask for name, mask in masks.items() if names_thing(noun, name)), None)


def _random_units(model: HookedVLM, units: list[Neuron], random: torch.Generator) -> list[Neuron]:
    """For each unit another one of its layer; any where the layer has too few others."""
    numbers, order = numbers_of(model, units), shuffle(model, random)
    found = partners(model, numbers, order)
    found = found if found is not None else partners(model, numbers, order, others=False)
    return neurons_of(model, numbers if found is None else found)


def _arms(units: list[Neuron], others: list[Neuron], speaks: list[bool]) -> list[dict[str, Any]]:
    """What each map is of: arm, rank, neuron, interpretable."""
    rows: list[dict[str, Any]] = [
        {"arm": arm, "rank": i, "neuron": neuron, "interpretable": speaks[i]}
        for arm, group in (("attributed", units), ("random", others))
        for i, neuron in enumerate(group)
    ]
    for arm in ("mean map", "mean map of random"):
        rows.append({"arm": arm, "rank": 0, "neuron": None, "interpretable": False})
    return rows
