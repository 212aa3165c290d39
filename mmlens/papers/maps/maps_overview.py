"""All methods side by side, what they cost, and their contests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.maps.map_methods import ABSENT, CHANCE, EARLY, LENS
from mmlens.papers.maps.maps_left_out import Why, told_left_out
from mmlens.papers.maps.questions.map_scores import BY_MASK, CURVES, values_of
from mmlens.papers.study_folder import told_interval
from mmlens.papers.study_report import Part

HEADS = {"energy": "energy", "pointing": "pointing", "deletion": "deletion (low is good)",
         "insertion": "insertion"}  # fmt: skip
_PATCHES = "Which patches of the picture does a word come from?"
_PLACE = "Where in the picture is the thing that a word names?"


def costs_of(table: pd.DataFrame) -> dict[str, float]:
    """The median cost of each method, in forward passes; of random numbers 0."""
    rows = values_of(table)
    costs: Any = rows[rows["metric"] == "cost"].groupby("arm", sort=False)["value"].median()
    return {**{str(name): float(value) for name, value in costs.items()}, CHANCE: 0.0}


def side_by_side(
    found: pd.DataFrame, names: Sequence[str], why: Why, costs: Mapping[str, float]
) -> Part:
    """Every measure of every method.

    Args:
        found: the summary. names: of the methods, in their order.
        why: what is left out; told here is what concerns the mask alone.
    """
    arms = [name for name in (CHANCE, *names, ABSENT) if name in set(found["arm"])]
    rows = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    lines = [["method", *HEADS.values(), "cost in passes"]]
    for arm in arms:
        cells = [told_interval(rows[arm, name]) if (arm, name) in rows else "" for name in HEADS]
        cost = f"{costs[arm]:.0f}" if arm in costs else ""
        lines.append([arm, *cells, cost])
    drawn = found[found["metric"].isin(list(HEADS))].assign(
        panel=lambda some: some["metric"].map(HEADS)
    )
    methods = [arm for arm in arms if arm != ABSENT]
    draw = partial(
        strips, drawn, {arm: arm for arm in methods}, "Maps of relevance",
        "with 95 % intervals; dotted: random numbers", panels=list(HEADS.values()), line=CHANCE,
    )  # fmt: skip
    by_mask = {name: [one for one in each if one[0] <= {*BY_MASK}] for name, each in why.items()}
    return Part(
        "maps", "All methods, side by side",
        "Energy: the share of the map on the thing. Pointing: how often its peak is on it."
        " Deletion and insertion: the word's probability while patches are covered or shown, the"
        " strongest first, as the mean over the curve. The cost is computing time, in forward"
        " passes of one prompt (the median over pictures).",
        _best(rows, methods), table=lines, summary=found, draw=draw, name="all", numbered=False,
        notes=told_left_out(arms, by_mask, BY_MASK),
    )  # fmt: skip


def contests(table: pd.DataFrame, costs: Mapping[str, float]) -> list[Contest]:
    """Every method against random numbers, by model and by mask, and the lens against a word."""
    rows = values_of(table)
    how: dict[str, Any] = {"within": (0.0, 1.0), "passes": costs}
    told = [
        (_PATCHES, "insertion", "the word's probability while patches are shown in the map's order",
         "more"),
        (_PATCHES, "deletion", "the word's probability while patches are covered in the map's"
         " order", "less"),
        (_PLACE, "energy", "the share of the map that lies on the thing", "more"),
    ]  # fmt: skip
    found = []
    for question, metric, what, better in told:
        here = rows[rows["metric"] == metric]
        methods = [name for name in dict.fromkeys(here["arm"])
                   if name not in (CHANCE, ABSENT, EARLY)]  # fmt: skip
        if methods:
            controls = dict.fromkeys(methods, CHANCE)
            found.append(Contest(question, what, here, controls, better=better, **how))
    lens = rows[(rows["metric"] == "energy") & rows["arm"].isin([LENS, ABSENT])]
    if lens["arm"].nunique() == 2:
        found.append(Contest(_PLACE, told[-1][2], lens, {LENS: ABSENT}, **how))
    return found


def _best(rows: Mapping[tuple[str, str], Mapping[Any, Any]], methods: Sequence[str]) -> str:
    """Who leads by each measure, in a sentence."""
    told = []
    for metric, text, sign in (("insertion", "Highest by insertion", 1),
                               ("deletion", "lowest by deletion", -1),
                               ("energy", "most on the thing", 1)):  # fmt: skip
        there = [arm for arm in methods if (arm, metric) in rows]
        if there:
            best = max(there, key=lambda arm: sign * rows[arm, metric]["mean"])
            told.append(f"{text}: {best}, {told_interval(rows[best, metric])}")
    n = max(row["n"] for (arm, metric), row in rows.items() if metric in (*BY_MASK, *CURVES))
    return f"{'; '.join(told)}. {n} pictures."
