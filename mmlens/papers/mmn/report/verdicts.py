"""Whether the paper's four claims hold, computed from the summaries and from nothing else.

E1  neurons say what is in their picture     the interval of (neurons - random pairs) lies above 0,
                                             by every metric that was measured; fails if one lies
                                             below 0
E2  the projection does not say it already   Kolmogorov-Smirnov's D of prompts against random
                                             vectors is shown to be smaller than the margin, by
                                             every metric, mean and max over patches, or prompts
                                             are shown to fit less than random vectors do; fails if
                                             one D is shown to be larger, and prompts don't fit less
                                             (`comparisons.distance`)
E3  neurons look at the thing                IoU above that of random units in at least 10 of 12
                                             concepts, in as many that chance would seldom do it,
                                             and the interval over all pictures above 0; fails if
                                             that lies below 0, or more than 2 of 12 concepts' do
E5  the caption depends on them              at the largest share of silenced units: the interval
                                             of the probability's fall lies above 80 %, with as many
                                             random units within 10 % of no change, and that of the
                                             difference above 0; fails if one lies on the other side

A claim holds, fails, or is undecided: where an interval reaches to both sides, where fewer than
`LEAST` pictures were measured, and where nothing was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import LEAST
from mmlens.papers.claims import Verdict

Judged = tuple[bool | None, str, int]
"""Whether a claim holds, the numbers in a sentence, and how many pictures there were."""

CLAIMS = {
    "E1": "Neurons translate what is in the picture into words",
    "E2": "The projection alone does not translate it",
    "E3": "Neurons look at the thing that they name",
    "E5": "The caption depends on these neurons",
}
P, CONCEPTS, FALLS, STAYS = 0.05, 10 / 12, 0.80, 0.10


def verdict(experiment: str, summary: pd.DataFrame, why: str = "") -> Verdict:
    """The verdict of one of `CLAIMS` on a summary; `why` there is none, if there is none."""
    if why or not len(summary):
        told = f"Not measured: {why or 'there is no number.'}"
        return Verdict(experiment, CLAIMS[experiment], None, told)
    holds, says, pictures = _JUDGES[experiment](summary)
    if 0 < pictures < LEAST:
        holds = None
        says += f" Measured on {_many(pictures)}: of fewer than {LEAST} no claim is decided."
    return Verdict(experiment, CLAIMS[experiment], holds, says)


def _many(pictures: int) -> str:
    return f"{pictures} picture{'s' * (pictures != 1)}"


def every(*parts: bool | None) -> bool | None:
    """True if all parts are, False if one is, else None."""
    return False if False in parts else (None if None in parts else True)


def above(row: Any, limit: float) -> bool | None:
    """Whether a mean lies above a limit, by its interval."""
    low, high = float(row["low"]), float(row["high"])
    return True if low > limit else (False if high < limit else None)


def _translates(summary: Any) -> Judged:
    gaps = summary[summary["arm"] == "neurons - random"].to_dict("records")
    if not gaps:
        return None, "No metric was measured.", 0
    parts = [f"{row['metric']} {row['mean']:+.3f} {interval(row)}".rstrip() for row in gaps]
    says = f"Above randomised pairs by {'; '.join(parts)}."
    return every(*(above(row, 0.0) for row in gaps)), says, min(int(row["n"]) for row in gaps)


def _untranslated(summary: Any) -> Judged:
    rows = summary[(summary["arm"] == "prompt ~ random") & (summary["metric"] != "D of cosine")]
    if not len(rows):
        return None, "No metric was measured.", 0
    less = rows.apply(lambda row: _fits_less(summary, row), axis=1)
    beyond = (rows["p_beyond"] <= P) & ~less
    equal = (rows["p_equal"] <= P) | less
    pool = rows[beyond] if beyond.any() else (rows[~less] if (~less).any() else rows)
    worst = pool.loc[pool["p_beyond"].idxmin() if beyond.any() else pool["mean"].idxmax()]
    told = (
        f"prompts against random vectors, {worst['metric'].removeprefix('D of ')}"
        f" ({worst['over']} over patches): D = {worst['mean']:.3f} {interval(worst)}".rstrip()
    )
    within = f"the margin of {float(worst['margin']):g}"
    n = int(rows["n"].min())
    if less.all():
        return True, f"Prompts fit less than random vectors do: {told}.", n
    if beyond.any():
        p = probability(worst["p_beyond"])
        return False, f"They lie further apart than {within}: {told}, p {p}.", n
    if equal.all():
        p = probability(rows.loc[~less, "p_equal"].max())
        return True, f"They lie closer than {within}, p {p}; the largest is {told}.", n
    return None, f"Neither closer nor further apart than {within}; the largest is {told}.", n


def _fits_less(summary: Any, row: Any) -> bool:
    """Whether prompts are shown to score below random vectors: then they translate nothing."""
    gap = summary[
        (summary["arm"] == "prompt - random")
        & (summary["metric"] == row["metric"].removeprefix("D of "))
        & (summary["over"] == row["over"])
    ]
    return bool(len(gap)) and float(gap["high"].iloc[0]) < 0


def _looks(summary: Any) -> Judged:
    rows = summary[(summary["arm"] == "attributed - random") & (summary["metric"] == "IoU")]
    each, whole = rows[rows["concept"] != "all"], rows[rows["concept"] == "all"]
    if not len(each) or not len(whole):
        return None, "No concept was measured.", 0
    up, clear = int((each["mean"] > 0).sum()), int((each["low"] > 0).sum())
    down = int((each["high"] < 0).sum())
    over: Any = whole.iloc[0]
    says = (
        f"IoU above random units in {up} of {len(each)} concepts ({clear} with an interval above"
        f" 0); over all pictures {over['mean']:+.3f} {interval(over)}".rstrip()
        + "."
    )
    need = math.ceil(CONCEPTS * len(each) - 1e-9)
    from scipy.stats import binomtest

    enough = None
    if len(each) - down < need:
        enough = False
    elif up >= need and binomtest(up, len(each), alternative="greater").pvalue <= P:
        enough = True
    return every(enough, above(over, 0.0)), says, int(over["n"])


def _matters(summary: Any) -> Judged:
    drops = summary[summary["metric"] == "drop"]
    both = set.intersection(
        *(set(drops.loc[drops["arm"] == arm, "k"]) for arm in ("attributed", "random"))
    )
    most = max(both, default=0)
    if most <= 0:
        return None, "No units were silenced.", 0
    own, random, gap = (
        drops[(drops["arm"] == arm) & (drops["k"] == most)].iloc[0]
        for arm in ("attributed", "random", "attributed - random")
    )
    says = (
        f"Without the top {int(most)} units the noun's probability {change(own)}, without"
        f" {int(most)} random units it {change(random)}."
    )
    parts = above(own, FALLS), above(random, -STAYS), below(random, STAYS), above(gap, 0.0)
    return every(*parts), says, min(int(row["n"]) for row in (own, random, gap))


def below(row: Any, limit: float) -> bool | None:
    """Whether a mean lies below a limit, by its interval."""
    found = above(row, limit)
    return None if found is None else not found


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
    told = f"{word} by {mean:.0%}".replace("%", " %")
    return f"{told} {interval({'low': low, 'high': high}, '.0%')}".rstrip()


def probability(p: float) -> str:
    """A p-value as one writes it."""
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)


_JUDGES: dict[str, Callable[[Any], Judged]] = {
    "E1": _translates,
    "E2": _untranslated,
    "E3": _looks,
    "E5": _matters,
}
