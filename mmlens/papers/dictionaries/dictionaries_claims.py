"""What is claimed of sparse autoencoders, each judged from figures or from activations.

S1 figures    the dictionary reconstructs what it reads, with units that are used
S2 purity     its units' strongest pictures show one thing more often than those of neurons
S3 MonoScore  its units are about one thing more than neurons, and than any direction
S4 told       one of its units tells a thing better than one neuron does
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mmlens.papers.bootstrap import LEAST, differences, summarise
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.dictionaries.questions.peaks import COORDINATES, NEURONS, RANDOM, UNITS
from mmlens.papers.dictionaries.unit_truth import (
    TOP,
    mono_scores,
    often_active,
    purity,
    told_by_one,
)
from mmlens.papers.study_folder import above, together, told_interval
from mmlens.papers.study_report import Part
from mmlens.tally.intervals import intervals

BARS = {"explained": 0.8, "recovered_mean": 0.9, "alive": 0.8}
"""What a dictionary is asked to reach, set before the bundled world's was trained."""
_SAID = {"explained": "explained variance", "recovered_mean": "loss recovered, from the mean",
         "alive": "units that are alive"}  # fmt: skip
CLAIMS = {
    "S1": "It reconstructs what it reads, with units that are used",
    "S2": "Its units' strongest pictures show one thing more often than those of neurons",
    "S3": "Its units are about one thing more than neurons and than any direction",
    "S4": "One of its units tells a thing better than one neuron does",
}
TITLES = {
    "S1": "Does the dictionary reach its bars?",
    "S2": "Do the strongest pictures of a unit show one thing?",
    "S3": "Is a unit about one thing wherever it is active?",
    "S4": "Does one unit tell a thing?",
}
HOW = {
    "S1": "The usual figures on pictures that it was not trained on (Gao et al. 2024). The loss of"
    " captions is recovered from that with the mean in the place of what is reconstructed.",
    "S2": f"Purity: of the {TOP} pictures of largest activation, the share that show the commonest"
    f" thing; means over units that are active on {TOP} pictures or more.",
    "S3": "MonoScore (Pach et al. 2025, equation 3): of all pairs of pictures, weighted by both"
    " activations, the share that show one thing; means over the same units.",
    "S4": "Of each thing, AUROC of the unit that tells it best from all others, chosen on every"
    " other picture of each thing and told on the rest. Kinds have different numbers of units.",
}
RULES = {
    "S1": "it holds if every figure reaches its bar, and fails if one does not.",
    "S2": "it holds if the interval of the dictionary's units lies above that of MLP neurons, and"
    " fails if it lies below.",
    "S3": "it holds if the interval of the dictionary's units lies above those of all others, and"
    " fails if it lies below one.",
    "S4": f"it holds if the interval of ({UNITS} - {NEURONS}), thing by thing, lies above 0, and"
    " fails if it lies below.",
}
OVER_UNITS = (
    "Intervals are over units, of this one dictionary and on these pictures: they do not say how"
    " far other pictures, or another training, would move the means."
)
Peaks = Mapping[str, Tensor]
"""By kind of unit, Float[picture, unit]."""


def judged(
    figures: Mapping[str, float], peaks: Peaks, things: Tensor, **how: Any
) -> tuple[list[Part], Contest]:
    """The parts of all claims, and the contest of S4.

    Args:
        figures: of `train.dictionary_figures`.
        things: Int[picture], what each picture shows.
        how: draws and seed of the intervals.
    """
    table = scores(peaks, things, **how)
    told = told_rows(peaks, things)
    controls = {UNITS: NEURONS, NEURONS: RANDOM, COORDINATES: RANDOM}
    contest = Contest(
        "Which units are about one thing?",
        "AUROC of each thing's best single unit, on pictures that did not choose it",
        told, controls, within=(0.0, 1.0),
    )  # fmt: skip
    parts = [_figures(figures), _above("S2", table), _above("S3", table), _told(told, **how)]
    return parts, contest


def scores(peaks: Peaks, things: Tensor, **how: Any) -> pd.DataFrame:
    """kind, metric ("purity", "MonoScore"), mean, low, high, n (units), silent, chance.

    `chance` is the same with the things of the pictures mixed up.
    """
    mixed = things[torch.randperm(len(things), generator=torch.Generator().manual_seed(1))]
    rows = []
    for kind, every in peaks.items():
        often = often_active(every)
        values = every[:, often]
        for metric, score in (("purity", purity), ("MonoScore", mono_scores)):
            found = score(values, things).double().numpy()[:, None]
            mean = low = high = chance = float("nan")
            if len(found):
                mean, low, high = intervals(found, None, [(0.0, 1.0)], **how)[0]
                chance = float(score(values, mixed).mean())
            rows.append((kind, metric, mean, low, high, len(found), int((~often).sum()), chance))
    names = ["kind", "metric", "mean", "low", "high", "n", "silent", "chance"]
    return pd.DataFrame(rows, columns=names)


def told_rows(peaks: Peaks, things: Tensor) -> pd.DataFrame:
    """sample (the thing's number), arm (the kind), value: AUROC of its best unit."""
    return pd.DataFrame([
        {"sample": str(thing), "arm": kind, "value": float(value)}
        for kind, values in peaks.items()
        for thing, value in enumerate(told_by_one(values, things))
    ])  # fmt: skip


def _figures(figures: Mapping[str, float]) -> Part:
    """S1."""
    reached = {**figures, "alive": 1 - figures["dead"]}
    known = {name: bar for name, bar in BARS.items() if name in reached}
    rows = [Row(f"{_SAID[name]}; the bar is {bar}", f"{reached[name]:.3f}")
            for name, bar in known.items()]  # fmt: skip
    rows.append(Row("L0, active units at a patch", f"{figures['l0']:.1f}"))
    missed = [_SAID[name] for name, bar in known.items() if reached[name] < bar]
    says = f"Below the bar: {', '.join(missed)}." if missed else "Every figure reaches its bar."
    return _part("S1", says, not missed, rows=rows)


def _above(key: str, table: pd.DataFrame) -> Part:
    """S2 and S3: the dictionary's interval beside those of the others."""
    metric = {"S2": "purity", "S3": "MonoScore"}[key]
    here: Any = table[table["metric"] == metric]
    rows = {row["kind"]: row for row in here.to_dict("records")}
    own = rows[UNITS]
    others = [NEURONS] if key == "S2" else [kind for kind in rows if kind != UNITS]
    holds = together(*(_apart(own, rows[kind]) for kind in others))
    says = f"Mean {metric} of {_told_units(own)}: {told_interval(own, 3)}; " + ", ".join(
        f"of {kind} {told_interval(rows[kind], 3)}" for kind in rows if kind != UNITS
    ) + "."  # fmt: skip
    told = [Row(f"{kind}: {row['n']} judged, {row['silent']} left out",
                f"{told_interval(row, 3)}, by chance {row['chance']:.3f}")
            for kind, row in rows.items()]  # fmt: skip
    return _part(key, says, holds, rows=told, summary=here, notes=[OVER_UNITS])


def _told_units(row: Any) -> str:
    return f"{row['n']} units of the dictionary"


def _apart(own: Any, other: Any) -> bool | None:
    """Whether one interval lies above the other (True), below it (False), or on it (None).

    Of fewer than `LEAST` units of either nothing is decided.
    """
    if min(own["n"], other["n"]) < LEAST:
        return None
    return True if own["low"] > other["high"] else False if own["high"] < other["low"] else None


def _told(rows: pd.DataFrame, **how: Any) -> Part:
    """S4."""
    both = pd.concat([rows, differences(rows, UNITS, NEURONS)])
    found: Any = summarise(both.assign(metric="share"), ["arm", "metric"], **how)
    each = {row["arm"]: row for row in found.to_dict("records")}
    gap = each[f"{UNITS} - {NEURONS}"]
    says = (
        f"AUROC {told_interval(each[UNITS], 3)} of one unit, {told_interval(each[NEURONS], 3)} of"
        f" one neuron: a difference of {told_interval(gap, 3)}, over {gap['n']} things."
    )
    told = [Row(kind, told_interval(row, 3)) for kind, row in each.items()]
    return _part("S4", says, above(gap), rows=told, summary=found.drop(columns="metric"))


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], HOW[key], says, verdict, RULES[key], **more)
