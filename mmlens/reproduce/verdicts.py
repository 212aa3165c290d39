"""Whether the paper's four claims hold, computed from the summaries and from nothing else.

E1  neurons say what is in their picture     the interval of (neurons - random pairs) lies above 0,
                                             by every metric that was measured
E2  the projection does not say it already   Kolmogorov-Smirnov, prompts against random vectors:
                                             p > .05 by every metric, mean and max over patches
E3  neurons look at the thing                IoU above that of random units in at least 10 of 12
                                             concepts, and the interval over all pictures above 0
E5  the caption depends on them              at the largest share of silenced units, the noun's
                                             probability falls by at least 80 %, and changes by less
                                             than 10 % with as many random units; the interval of
                                             the difference lies above 0

A claim that could not be measured neither holds nor fails: `holds` is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

CLAIMS = {
    "E1": "Neurons translate what is in the picture into words",
    "E2": "The projection alone does not translate it",
    "E3": "Neurons look at the thing that they name",
    "E5": "The caption depends on these neurons",
}
P, CONCEPTS, FALLS, STAYS = 0.05, 10 / 12, 0.80, 0.10


@dataclass(frozen=True)
class Verdict:
    """A claim, whether it holds (None: not measured), and the numbers in a sentence."""

    experiment: str
    claim: str
    holds: bool | None
    says: str

    @property
    def word(self) -> str:
        return {True: "holds", False: "fails", None: "not measured"}[self.holds]


def verdict(experiment: str, summary: pd.DataFrame, why: str = "") -> Verdict:
    """The verdict of one of `CLAIMS` on a summary; `why` there is none, if there is none."""
    if why or not len(summary):
        return Verdict(experiment, CLAIMS[experiment], None, why or "Nothing was measured.")
    holds, says = _JUDGES[experiment](summary)
    return Verdict(experiment, CLAIMS[experiment], holds, says)


def _translates(summary: Any) -> tuple[bool | None, str]:
    gaps = summary[summary["arm"] == "neurons - random"]
    if not len(gaps):
        return None, "No metric was measured."
    parts = [
        f"{row['metric']} {row['mean']:+.3f} {interval(row)}" for row in gaps.to_dict("records")
    ]
    return bool((gaps["low"] > 0).all()), f"Above randomised pairs by {'; '.join(parts)}."


def _untranslated(summary: Any) -> tuple[bool | None, str]:
    rows = summary[(summary["arm"] == "prompt ~ random") & (summary["metric"] != "D of cosine")]
    if not len(rows):
        return None, "No metric was measured."
    worst = rows.loc[rows["p"].idxmin()]
    told = (
        f"prompts against random vectors, {worst['metric'].removeprefix('D of ')}"
        f" ({worst['over']} over patches): D = {worst['mean']:.3f}, p {probability(worst['p'])}"
    )
    if (rows["p"] > P).all():
        return True, f"No difference is seen; the largest is {told}."
    return False, f"They differ: {told}."


def _looks(summary: Any) -> tuple[bool | None, str]:
    rows = summary[(summary["arm"] == "attributed - random") & (summary["metric"] == "IoU")]
    each, whole = rows[rows["concept"] != "all"], rows[rows["concept"] == "all"]
    if not len(each) or not len(whole):
        return None, "No concept was measured."
    above, clear = int((each["mean"] > 0).sum()), int((each["low"] > 0).sum())
    over: Any = whole.iloc[0]
    says = (
        f"IoU above random units in {above} of {len(each)} concepts ({clear} with an interval above"
        f" 0); over all pictures {over['mean']:+.3f} {interval(over)}."
    )
    return bool(above >= math.ceil(CONCEPTS * len(each) - 1e-9) and over["low"] > 0), says


def _matters(summary: Any) -> tuple[bool | None, str]:
    drops = summary[summary["metric"] == "drop"]
    both = set.intersection(
        *(set(drops.loc[drops["arm"] == arm, "k"]) for arm in ("attributed", "random"))
    )
    most = max(both, default=0)
    if most <= 0:
        return None, "No units were silenced."
    own, random, gap = (
        drops[(drops["arm"] == arm) & (drops["k"] == most)].iloc[0]
        for arm in ("attributed", "random", "attributed - random")
    )
    says = (
        f"Without the top {int(most)} units the noun's probability {change(own)}, without"
        f" {int(most)} random units it {change(random)}."
    )
    return bool(own["mean"] >= FALLS and abs(random["mean"]) < STAYS and gap["low"] > 0), says


def interval(row: Any, how: str = ".3f") -> str:
    """[low, high] of a row, or nothing where there is none."""
    low, high = float(row["low"]), float(row["high"])
    text = f"[{low:{how}}, {high:{how}}]" if math.isfinite(low + high) else ""
    return text.replace("%", " %")


def change(drop: Any) -> str:
    """What happens to a probability: "falls by 91 % [87 %, 94 %]"."""
    mean, low, high = (float(drop[name]) for name in ("mean", "low", "high"))
    if mean < 0:
        mean, low, high = -mean, -high, -low
    word = "falls" if float(drop["mean"]) >= 0 else "rises"
    return f"{word} by {mean:.0%} ".replace("%", " %") + interval({"low": low, "high": high}, ".0%")


def probability(p: float) -> str:
    """A p-value as one writes it."""
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)


_JUDGES: dict[str, Callable[[Any], tuple[bool | None, str]]] = {
    "E1": _translates,
    "E2": _untranslated,
    "E3": _looks,
    "E5": _matters,
}
