"""Contests: methods that answer one question, each judged against a control of its own.

A contest is one measure on pictures with known truth. Of every method it has the number itself, its
control's, and the difference of the two picture by picture, whose interval says whether the method
beats its control, is behind it, or is not told apart (`judged`). The shoot-out lists the contests
of all studies in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import differences, summarise
from mmlens.papers.study_folder import above, below, told_interval
from mmlens.papers.tables import ExperimentError
from mmlens.tally.intervals import ANY, DRAWS

COLUMNS = ("question", "measure", "method", "control", "mean", "low", "high", "control mean",
           "gap", "gap low", "gap high", "n", "beats", "passes")  # fmt: skip
NO_PICTURE = {**dict.fromkeys(("mean", "low", "high"), float("nan")), "n": 0}
"""The difference of two arms that were never asked of the same picture."""
BEATS = {True: "ahead", False: "behind", None: "not told apart"}


@dataclass(frozen=True, eq=False)
class Contest:
    """One measure of several methods.

    Attributes:
        question: what the methods answer, in a user's words. measure: what is counted.
        rows: sample, arm, value, and base where it is a ratio of means; several values of one
            picture are averaged first. Or a summary of such rows, where a study has its own: arm
            (also "method - control"), mean, low, high, n.
        controls: by each method's arm, the arm of its control.
        control: what the controls are in words, where their arms do not say it.
        better: whether "more" or "less" is good.
        within: between which values the measure lies, where that is known.
        passes: by arm, what it costs in forward passes, where that is known.
    """

    question: str
    measure: str
    rows: pd.DataFrame = field(repr=False)
    controls: Mapping[str, str]
    better: str = "more"
    control: str = ""
    within: tuple[float, float] = ANY
    passes: Mapping[str, float] = field(default_factory=dict)


def judged(contest: Contest, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """One row a method: its mean, its control's, their difference, and whether it is ahead.

    Returns:
        question, measure, method, control, mean, low, high, control mean, gap, gap low, gap high,
        n (pictures that have both), beats (None: not told apart, or fewer than 8 pictures), passes.

    Raises:
        ExperimentError: an arm is not among the rows, or `better` is neither "more" nor "less".
    """
    if contest.better not in ("more", "less"):
        raise ExperimentError(f'better="{contest.better}" is none of "more" and "less".')
    there = set(contest.rows["arm"])
    missing = [arm for pair in contest.controls.items() for arm in pair if arm not in there]
    if missing:
        raise ExperimentError(
            f"The contest has no rows of {missing[0]!r}; it has those of"
            f" {', '.join(sorted(there))}."
        )
    summed = "mean" in contest.rows.columns
    found = contest.rows if summed else _summarised(contest, draws=draws, seed=seed)
    found = found.set_index("arm")
    decide = above if contest.better == "more" else below
    told = []
    for method, control in contest.controls.items():
        own, other = (found.loc[arm] for arm in (method, control))
        both = f"{method} - {control}"
        gap: Any = found.loc[both] if both in found.index else pd.Series(NO_PICTURE)
        against = contest.control or control
        told.append((
            contest.question, contest.measure, method, against, own["mean"], own["low"],
            own["high"], other["mean"], gap["mean"], gap["low"], gap["high"], int(gap["n"]),
            decide(dict(gap)), contest.passes.get(method, float("nan")),
        ))  # fmt: skip
    return pd.DataFrame(told, columns=list(COLUMNS)).astype({"beats": object})


def lost(rows: Any) -> pd.DataFrame:
    """Rows of a contest, what is lost of a probability, of rows with `before` and `probability`."""
    before = rows["before"].astype(float)
    value = before - rows["probability"].astype(float)
    return rows[["sample", "arm"]].assign(value=value, base=before)


def _summarised(contest: Contest, **how: Any) -> pd.DataFrame:
    """arm, mean, low, high, n of every arm, and of every method less its control."""
    kept = [name for name in ("sample", "arm", "value", "base") if name in contest.rows.columns]
    rows: Any = contest.rows[kept].assign(metric="measure")
    gaps = [differences(rows, *pair) for pair in contest.controls.items()]
    every = pd.concat([rows, *gaps])
    return summarise(every, ["arm", "metric"], ranges={"measure": contest.within}, **how)


def contest_table(found: pd.DataFrame) -> list[list[str]]:
    """A table of judged contests as text, its head first: a line a method."""
    lines = [["method", "it", "its control", "difference", "told", "pictures", "cost in passes"]]
    for row in found.to_dict("records"):
        gap = {"mean": row["gap"], "low": row["gap low"], "high": row["gap high"]}
        passes = "" if pd.isna(row["passes"]) else f"{row['passes']:.0f}"
        lines.append([
            str(row["method"]), told_interval(row), f"{row['control mean']:.2f} ({row['control']})",
            told_interval(gap), BEATS[row["beats"]], str(row["n"]), passes,
        ])  # fmt: skip
    return lines
