"""Which attribution method tells the truth? Rankings of units judged by what the model then does.

Every method (`rankings`) ranks all units for the first noun c of the caption, by its scores at the
positions of the picture and, apart from that, at the last position, which predicts c. A ranking is
judged by

    area            the top k units are silenced, k growing fourfold: the mean of p_k / p_0 along
                    the curve (trapezoids, one step per k, so k counts by its logarithm). 1: nothing
                    happens; the lower, the more faithful. Over pictures, which count by their p_0,
                    it is mean p_k / mean p_0: a ratio of means (`bootstrap`).
    IoU of units    masks of the top units' activation maps with the mask of the thing that c names
    IoU of map      the same for the top units' summed scores per patch
    planted         1 / rank of the planted neuron, in models with known ground truth

Units are silenced where they were scored (`where="same"`), or everywhere. Not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.causal.silencing import WHERE, number_after, units_at
from mmlens.datasets.sample import Sample
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.ablation import numbers
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import neurons_of, numbers_of, ranked
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, Rule
from mmlens.papers.mmn.questions.rankings import METHODS, rankings
from mmlens.papers.mmn.questions.regions import named_mask
from mmlens.papers.mmn.questions.unit_masks import (
    PERCENTILE,
    SIZE,
    iou,
    masks_of,
    on_grid,
    true_mask,
    unit_ious,
)
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.values.arguments import count, several
from mmlens.values.labels import Neuron, Patch
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

SHARES = (0.0, 0.001, 0.004, 0.016, 0.064, 0.256)
COLUMNS = ("arm", "at", "metric", "k", "value")


def faithful(
    model: HookedVLM,
    sample: Sample,
    *,
    methods: Sequence[str] = METHODS,
    top: int = 20,
    positions: Sequence[str] = ("image", "last"),
    ks: Sequence[int | float] = SHARES,
    value: float | str = 0.0,
    where: str = "same",
    rank_by: str = "pair",
    target: str = "logit",
    steps: int = 8,
    percentile: float = PERCENTILE,
    size: int = SIZE,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    batch: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Every method's ranking of one picture, judged.

    Args:
        positions: "image" and "last", judged apart.
        ks: how many units are silenced, as numbers or shares of all units.
        top: so many units are compared with the mask.
        where: silenced in the "same" positions, or at "all".
        steps: of integrated gradients.

    Returns:
        arm (the method), at, metric ("probability" by k, "area", "IoU of units", "IoU of map",
        "planted"), k (None but for "probability"), value, skipped, options.
    """
    methods, ks = several(methods, "methods"), several(ks, "ks")
    positions = several(positions, "positions")
    asked = Asked.from_arguments(locals(), COLUMNS)
    count(steps, "steps", most=1000)
    counts = numbers(ks, model.cfg.n_layers * model.cfg.d_mlp)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    mask = named_mask(sample, seen.noun)
    truth = true_mask(model, mask, size) if mask is not None else None
    orders: dict[tuple[str, str], torch.Tensor] = {}
    rows: list[tuple[Any, ...]] = []
    for method, scores in rankings(
        model, seen, asked.random(), methods, target=target, steps=steps
    ):
        for at in positions:
            order = orders[method, at] = ranked(scores, rank_by, WHERE[at])
            rows += [(method, at, "planted", None, share) for share in _recovery(model, order)]
            if truth is not None and at == "image":
                met = _map_iou(scores, order[:top], truth, percentile)
                rows.append((method, at, "IoU of map", None, met))
    if truth is not None:
        best = {key: neurons_of(model, order[:top]) for key, order in orders.items()}
        every = [neuron for units in best.values() for neuron in units]
        met = unit_ious(model, seen.soft, every, truth, percentile)
        for key, units in best.items():
            rows.append((*key, "IoU of units", None, sum(met[n] for n in units) / len(units)))
    for at in positions:
        own = {method: order for (method, place), order in orders.items() if place == at}
        spot = at if where == "same" else where
        rows += _curves(model, seen, own, at, counts, value=value, where=spot, batch=batch)
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """By method: experiment, arm, at, metric, k (NaN but for the curve), mean, low, high, n, ..."""
    rows: Any = used(table, *COLUMNS).dropna(subset="value")[["sample", *COLUMNS]]
    rows["value"] = rows["value"].astype(float)
    curve = rows[(rows["metric"] == "probability") & rows["k"].notna()].astype({"k": int})
    rest = rows[rows["metric"] != "probability"].drop(columns="k").assign(base=1.0)
    first = curve[curve["k"] == 0].drop_duplicates("sample").set_index("sample")["value"]
    areas = rest["metric"] == "area"
    if len(first):  # without k = 0 there is no area either
        rest.loc[areas, "base"] = rest.loc[areas, "sample"].map(first)
        rest.loc[areas, "value"] *= rest.loc[areas, "base"]
    if not len(curve):
        raise ExperimentError("No row of this table has the probability at a number of units.")
    against = [(method, "random") for method in rows["arm"].unique() if method != "random"]
    against = against if "random" in set(rows["arm"]) else []
    out = summarise(
        with_differences(rest, *against), ["arm", "at", "metric"], draws=draws, seed=seed
    )
    steps = summarise(curve, ["arm", "at", "metric", "k"], draws=draws, seed=seed)
    whole: Any = pd.concat([out, steps], ignore_index=True)
    order = ["arm", "at", "metric", "k", "mean", "low", "high", "n"]
    return finished(whole[order], "faithfulness", table, draws=draws, seed=seed)


def area(probabilities: Sequence[float]) -> float:
    """The mean of p_k / p_0 along a curve that begins at k = 0, by trapezoids of equal width."""
    curve = torch.tensor(probabilities, dtype=torch.float64)
    if len(curve) < 2 or float(curve[0]) <= 0:
        return float("nan")
    return float(torch.trapezoid(curve / curve[0]) / (len(curve) - 1))


def _curves(
    model: HookedVLM,
    seen: Explained,
    orders: dict[str, torch.Tensor],
    at: str,
    counts: Sequence[int],
    **how: Any,
) -> list[tuple[Any, ...]]:
    """The probability of the noun along each ranking, and its area."""
    units = [units_at(model, order[:k]) for order in orders.values() for k in counts]
    prob = number_after(model, seen.soft, lambda y: y.softmax(-1)[:, seen.token], units, **how)
    rows: list[tuple[Any, ...]] = []
    for method, curve in zip(orders, prob.reshape(len(orders), -1).tolist(), strict=True):
        rows += [(method, at, "probability", k, p) for k, p in zip(counts, curve, strict=True)]
        if counts and counts[0] == 0:
            rows.append((method, at, "area", None, area(curve)))
    return rows


def _map_iou(scores: Scores, top: torch.Tensor, truth: torch.Tensor, percentile: float) -> float:
    """IoU of the top units' summed scores per patch with a mask."""
    here = scores.sel(pos=Patch)
    summed = here.values.float().cpu().movedim(1, -1).flatten(0, 1)[top].sum(0)
    found = masks_of(on_grid(summed, here.of("pos")), truth.shape[-1], percentile)
    return float(iou(found, truth))


def _recovery(model: HookedVLM, order: torch.Tensor) -> list[float]:
    """1 / rank of the planted neuron, or nothing where none is planted."""
    planted = model.provenance.get("planted")
    if planted is None:
        return []
    place = (order == numbers_of(model, [Neuron.parse(planted)])).nonzero()
    return [1 / (1 + int(place[0]))]
