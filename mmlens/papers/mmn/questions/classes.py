"""E4: are the neurons of one class quiet on pictures of others? (MMN S.4, Fig. S.2)

1. On pictures of each class, the top 100 units, filtered for interpretability (`top_units`); per
   class the 20 units that occur in most pictures (`chosen`).
2. On other pictures of every class, the mean activation of these units over all patches
   (`class_activations`).
3. Matrix[class of the units, class of the pictures]; each row is divided by its maximum.

The class of a picture is the name of the one thing that it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlens.datasets.sample import Sample, content_hash
from mmlens.model.targets import one
from mmlens.papers.bootstrap import DRAWS, summarise
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import top_units as top_units
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.mmn.questions.unit_masks import unit_maps
from mmlens.papers.tables import ExperimentError, by_id, finished, used
from mmlens.values.arguments import choice, count, several, shown, text
from mmlens.values.labels import Neuron
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("concept", "neuron", "activation")


def class_of(sample: Sample) -> str | None:
    """The name of the only thing that a picture shows, or None."""
    return sample.names[0] if len(sample.names) == 1 else None


def chosen(
    table: pd.DataFrame, samples: Iterable[Sample], n: int = 20, *, keep: str = "interpretable"
) -> dict[str, list[str]]:
    """Per class, the `n` units that occur among the top units of most of its pictures.

    Args:
        table: of `top_units` on pictures of one class each.
        keep: "interpretable" units or "all". Equal counts are ordered by summed score.

    Returns:
        class -> units as text ("L14.2019"), which a sweep can take as options.
    """
    choice(keep, "keep", ("interpretable", "all"), error=ExperimentError)
    count(n, "n", error=ExperimentError)
    classes = {name: class_of(sample) for name, sample in by_id(samples).items()}
    rows = used(table, "neuron", "score", "interpretable")
    rows = rows[rows["interpretable"].astype(bool)] if keep == "interpretable" else rows
    rows = rows.assign(concept=rows["sample"].map(classes)).dropna(subset="concept")
    if not len(rows):
        raise ExperimentError("No unit is left: no picture shows one class, or none says words.")
    once = rows.groupby(["concept", "sample", "neuron"], sort=False)["score"].max().reset_index()
    counts: Any = once.groupby(["concept", "neuron"], sort=True)["score"].agg(["size", "sum"])
    counts = counts.sort_values(["size", "sum"], ascending=False, kind="stable").reset_index()
    return {
        str(name): [str(neuron) for neuron in part["neuron"].head(n)]
        for name, part in counts.groupby("concept")
    }


def class_activations(
    model: HookedVLM, sample: Sample, *, units: Sequence[str], prompt: str = PROMPT
) -> pd.DataFrame:
    """The mean activation of these units over all patches of a picture of one class.

    Returns:
        concept (the class), neuron, activation, skipped, options.
    """
    units = [text(unit, "units") for unit in several(units, "units")]
    digest = content_hash(*units)[:16]  # hundreds of units in every row would outweigh the rest
    told = f"{len(units)} units, sha256:{digest}"
    given = {"model": model, "sample": sample, "prompt": prompt}
    asked = Asked.from_arguments(given, COLUMNS, beside=("units",), units=told)
    concept = class_of(sample)
    if concept is None:
        return asked.skipped("the picture shows no class or several")
    neurons = [Neuron.parse(unit) for unit in dict.fromkeys(units)]
    soft = one(model, Prompt(sample.image, prompt))
    values = unit_maps(model, soft, neurons).mean((-2, -1)).tolist()
    table = pd.DataFrame({"concept": concept, "neuron": neurons, "activation": values})
    return asked.answered(table)


def summary(
    table: pd.DataFrame,
    units: Mapping[str, Sequence[str]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """The matrix, one row per cell: experiment, arm (class of the units), concept (of pictures)...

    Metric "activation" is the mean; "relative activation" divides a row by its largest mean (NaN
    where that is not positive); "own class highest" is 1 where it lies on the diagonal. The latter
    two have no interval: what they are measured by is itself measured, on other pictures.

    Args:
        table: of `class_activations` for all units.
        units: of `chosen`.
    """
    rows = used(table, "concept", "neuron", "activation")
    if not isinstance(units, Mapping) or not units:
        raise ExperimentError(f"units={shown(units)}: give what `chosen` returned.")
    rows = rows.assign(unit=[str(neuron) for neuron in rows["neuron"]])
    parts = [rows[rows["unit"].isin(list(own))].assign(arm=name) for name, own in units.items()]
    long = pd.concat(parts, ignore_index=True).rename(columns={"activation": "value"})
    cells: Any = summarise(long, ["arm", "concept"], draws=draws, seed=seed).assign(
        metric="activation"
    )
    top = cells.groupby("arm")["mean"].transform("max")
    scale = top.where(top > 0)
    relative = cells.assign(metric="relative activation", low=np.nan, high=np.nan)
    relative["mean"] = cells["mean"] / scale
    best = cells.loc[cells.groupby("arm")["mean"].idxmax()]
    own = best.assign(metric="own class highest", low=np.nan, high=np.nan)
    own["mean"] = (own["arm"] == own["concept"]).astype(float)
    whole: Any = pd.concat([cells, relative, own], ignore_index=True)
    order = ["arm", "metric", "concept", "mean", "low", "high", "n"]
    return finished(whole[order], "E4", table, draws=draws, seed=seed)


def matrix(summarised: pd.DataFrame, metric: str = "relative activation") -> pd.DataFrame:
    """Of a summary, the matrix [class of the units, class of the pictures]."""
    rows: Any = summarised[summarised["metric"] == metric]
    return rows.pivot(index="arm", columns="concept", values="mean")
