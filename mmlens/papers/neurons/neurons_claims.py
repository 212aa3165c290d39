"""The papers' claims about their lists, each judged from the one table.

P1 needed      the word is lost without the first of Pan's list
P2 activity    and more so than without the most active neurons
P3 words       their rows say the word
P4 late        they lie in the upper half of the layers
T1 needed      the word is lost without the first of NAM's list
M1 needed      the word is lost without MINER's neurons, at their share of all
D1 not needed  the word is kept without MMNeuron's neurons
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.neurons.pools import DOMAIN, MODALITY
from mmlens.papers.neurons.questions.lists import (
    ACTIVE,
    CONTRIBUTIONS,
    FIRST,
    OTHERS,
    STEPS,
    T_NEURONS,
    WORDS,
)
from mmlens.papers.study_folder import above, below, told_interval
from mmlens.papers.study_report import Part

BEYOND = f"{FIRST} - {OTHERS}"
KEPT = 0.1
"""MMNeuron: at most so much is lost (of the accuracy there, of the probability here)."""
CLAIMS = {
    "P1": "The word needs the neurons of the highest contribution scores",
    "P2": "It needs them more than those that are most active",
    "P3": "Their output rows say the word",
    "P4": "They lie in the upper half of the layers",
    "T1": "The word needs the T-neurons",
    "M1": "It needs the neurons of the modalities",
    "D1": "It hardly needs the neurons of the domain",
}
SOURCES = {
    "P": "Pan et al. (2024), arXiv:2311.07470",
    "T": "NAM, Fang et al. (2024), Advances in Neural Information Processing Systems 37",
    "M": "MINER, Huang et al. (2024), arXiv:2410.04819",
    "D": "MMNeuron, Huo et al. (2024), arXiv:2406.11193",
}
TITLES = {
    "P1": "Are neurons of high contribution scores needed?",
    "P2": "More than those that are most active?",
    "P3": "Do their rows say the word?",
    "P4": "Do they lie in the upper half?",
    "T1": "Are T-neurons needed?",
    "M1": "Are modality neurons needed?",
    "D1": "Can domain neurons be spared?",
}
_SILENCED = (
    "The first of the list are silenced at all positions, and so are as many others of their layers"
)
HOW = {
    "P1": f"{_SILENCED}. A score is the activation at the last position times what the unit writes"
    " towards the noun.",
    "P2": "The same, beside a list by activation at the last position alone.",
    "P3": f"A row says the noun if it is among its {WORDS} most probable tokens, read by the"
    " unembedding.",
    "P4": "Counted are the first of the list.",
    "T1": f"{_SILENCED}. A score is the larger of contribution and activation, each from 0 to 1"
    " within its layer.",
    "M1": f"{_SILENCED}. The list is that of the picture and of words, made of other pictures.",
    "D1": "The domain of a picture is the thing that the noun names; all neurons of that domain are"
    " silenced, or the first of them where there are more.",
}
PAPER = {
    "M1": ("six benchmarks, 2 % of all units: 0.56 to 0.24", "abstract, Qwen2-VL"),
    "D1": ("accuracy changes by at most 10 %", "abstract, LLaVA-NeXT and InstructBLIP"),
}


def judged(key: str, table: pd.DataFrame, found: pd.DataFrame, **how: Any) -> Part:
    """The part of one claim.

    Args:
        table: of `silenced_lists`. found: its summary.
        how: draws and seed of the bootstrap.
    """
    if key == "P2":
        return _against_activity(table, **how)
    if key in ("P3", "P4"):
        return _share(key, found)
    return _needed(key, found)


def contest(found: pd.DataFrame) -> Contest:
    """Every list against others of its layers, at the largest K.

    Args:
        found: the summary of `silenced_lists`.
    """
    lost: Any = found[found["metric"] == "lost"]
    here = lost[lost["k"] == _ks(lost)[-1]]
    name, arm = here["list"], here["arm"]
    others = name + ", others"
    own = name.where(arm == FIRST, others).where(arm != BEYOND, name + " - " + others)
    k = _ks(lost)[-1]
    return Contest(
        "Which neurons does a word need?",
        f"the share of the noun's probability that is lost without the first {k} neurons",
        here.assign(arm=own),
        {str(one): f"{one}, others" for one in dict.fromkeys(name)},
        control="others of its layers",
    )


def _needed(key: str, found: pd.DataFrame) -> Part:
    """P1, T1, M1 and D1: what is lost without the first of a list."""
    name = {"P1": CONTRIBUTIONS, "T1": T_NEURONS, "M1": MODALITY, "D1": DOMAIN}[key]
    rows: Any = found[(found["list"] == name) & (found["metric"] == "lost")]
    if not len(rows):
        return _part(key, "Not measured: no picture has such a list.", None, "")
    own, other, gap = (_last(rows, arm) for arm in (FIRST, OTHERS, BEYOND))
    these = "them" if key in ("M1", "D1") else f"the first {own['k']}"
    says = (
        f"Without {these} {told_interval(own)} of the noun's probability are lost,"
        f" without others {told_interval(other)}: a difference of {told_interval(gap)}, in"
        f" {gap['n']} pictures."
    )
    rule = (
        f"it holds if the interval of ({BEYOND}) of the share lost, at the largest K, lies above 0,"
        " and fails if it lies below."
    )
    holds = above(gap)
    if key == "D1":
        holds = below(own, KEPT)
        rule = (
            f"it holds if the interval of the share lost without them lies below {KEPT}, and fails"
            " if it lies above."
        )
    told = [Row(f"lost without the first {k}, beyond others",
                told_interval(_at(rows, BEYOND, k))) for k in _ks(rows)]  # fmt: skip
    if key in PAPER:
        told[-1] = Row(told[-1].what, told[-1].here, *PAPER[key])
    more: dict[str, Any] = {"rows": told, "summary": rows}
    if key == "P1":
        notes = [f"Integrated gradients are taken in {STEPS} steps: an order, and not a sum."]
        more = {"table": _every(found), "draw": _drawn(found), "summary": found, "notes": notes}
    return _part(key, says, holds, rule, **more)


def _against_activity(table: pd.DataFrame, **how: Any) -> Part:
    """P2."""
    rows: Any = table[(table["skipped"] == "") & (table["arm"] == FIRST)]
    rows = rows[rows["list"].isin([CONTRIBUTIONS, ACTIVE])]
    before = rows["before"].astype(float)
    long = pd.DataFrame({"sample": rows["sample"], "arm": rows["list"], "k": rows["k"],
                         "value": before - rows["probability"].astype(float),
                         "base": before})  # fmt: skip
    found: Any = summarise(with_differences(long, (CONTRIBUTIONS, ACTIVE)), ["arm", "k"], **how)
    own, other, gap = (
        _last(found, arm) for arm in (CONTRIBUTIONS, ACTIVE, f"{CONTRIBUTIONS} - {ACTIVE}")
    )
    says = (
        f"Without the first {own['k']} by contribution {told_interval(own)} are lost, by activation"
        f" {told_interval(other)}: a difference of {told_interval(gap)}, in {gap['n']} pictures."
    )
    rule = (
        "it holds if the interval of the difference of the shares lost, at the largest K, lies"
        " above 0, and fails if it lies below."
    )
    told = [Row(f"lost without the first {k}, beyond activation",
                told_interval(_at(found, f"{CONTRIBUTIONS} - {ACTIVE}", k)))
            for k in _ks(found)]  # fmt: skip
    return _part("P2", says, above(gap), rule, rows=told, summary=found)


def _share(key: str, found: pd.DataFrame) -> Part:
    """P3 and P4: which share of Pan's list is so."""
    metric = {"P3": "says", "P4": "upper"}[key]
    rows: Any = found[(found["list"] == CONTRIBUTIONS) & (found["metric"] == metric)]
    own, gap = _last(rows, FIRST), _last(rows, BEYOND)
    if key == "P3":
        says = (
            f"Of the first {own['k']} {told_interval(own)} say the noun, {told_interval(gap)} more"
            f" than of others of their layers, in {gap['n']} pictures."
        )
        rule = f"it holds if the interval of ({BEYOND}) lies above 0, and fails if it lies below."
        holds = above(gap)
    else:
        says = (
            f"Of the first {own['k']} {told_interval(own)} lie in the upper half of the layers, in"
            f" {own['n']} pictures."
        )
        rule = "it holds if the interval of that share lies above 0.5, and fails if it lies below."
        holds = above(own, 0.5)
    every: Any = found[(found["metric"] == metric) & (found["arm"] == FIRST)]
    told = [Row(f"{row['list']}: of the first {row['k']}", told_interval(row))
            for row in every.to_dict("records")
            if row["k"] == own["k"]]  # fmt: skip
    return _part(key, says, holds, rule, rows=told, summary=every)


def _every(found: pd.DataFrame) -> list[list[str]]:
    """What is lost without the first of each list, and without others, by K."""
    lost: Any = found[found["metric"] == "lost"]
    ks = _ks(lost)
    head = ["lost without the first K"]
    head += [f"{k}{more}" for k in ks for more in ("", ", beyond others")]
    lines = [head]
    for name in dict.fromkeys(lost["list"]):
        here = lost[lost["list"] == name]
        cells = [told_interval(_at(here, arm, k)) for k in ks for arm in (FIRST, BEYOND)]
        lines.append([str(name), *cells])
    return lines


def _drawn(found: pd.DataFrame) -> Any:
    lost: Any = found[(found["metric"] == "lost") & (found["arm"] == BEYOND)]
    panels = {k: f"the first {k}" for k in _ks(lost)}
    shown = lost.assign(panel=lost["k"].map(panels), arm=lost["list"])
    arms = {str(name): str(name) for name in dict.fromkeys(lost["list"])}
    return partial(strips, shown, arms, "Lost of the noun's probability without",
                   "beyond as many others of the same layers, with 95 % intervals",
                   panels=list(panels.values()))  # fmt: skip


def _ks(rows: Any) -> list[int]:
    return sorted({int(k) for k in rows["k"]})


def _at(rows: Any, arm: str, k: int) -> dict[str, Any]:
    """The one row of an arm at K; NaN, of no picture, where there is none."""
    here = rows[(rows["arm"] == arm) & (rows["k"] == k)]
    if not len(here):
        return {"k": k, "mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    return {str(name): value for name, value in here.iloc[0].items()}


def _last(rows: Any, arm: str) -> dict[str, Any]:
    """The row of an arm at the largest K."""
    return _at(rows, arm, _ks(rows)[-1])


def _part(key: str, says: str, holds: bool | None, rule: str, **more: Any) -> Part:
    how = f"{SOURCES[key[0]]}. {HOW[key]}"
    return Part(key, TITLES[key], how, says, Verdict(key, CLAIMS[key], holds, says), rule, **more)
