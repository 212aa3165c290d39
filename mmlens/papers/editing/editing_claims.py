"""The papers' claims about edits, each judged from the table of its question.

R1 said        a word rewritten in a few neurons is said of its picture           (Pan et al.)
R2 carried     and of another picture of the thing, more than with other neurons
R3 local       other things keep their words
R4 small       the change is smaller than with other neurons
S1 said        words rewritten one after the other are all said in the end        (NSE)
S2 carried     and of other pictures, more than with as many random units
S3 carried     and behind another prompt, more than with as many random units
S4 local       other things keep their words
S5 ahead       they carry over further than `rewrite`, one after the other
A1 removed     a word is lost with its vector, more than with another's           (PROJECTAWAY)
A2 spared      and hardly with another's
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.claims import Row, Verdict
from mmlens.papers.editing.questions import removals, rewriting, sequences
from mmlens.papers.editing.questions.removals import OTHER_VECTOR, OWN_VECTOR, RANDOM
from mmlens.papers.editing.questions.rewriting import (
    OTHER_UNITS,
    OWN,
    SAME,
    SECOND,
    SIZE,
    THINGS,
)
from mmlens.papers.editing.questions.sequences import BEHIND, NOISE, NSE, RANDOM_UNITS, ROWS
from mmlens.papers.interval_plots import strips
from mmlens.papers.study_folder import above, below, told_interval
from mmlens.papers.study_report import Part

HOLDS, LITTLE = 0.9, 0.1
"""What counts as holding: more than nine of ten. What counts as little: less than a tenth."""
CLAIMS = {
    "R1": "A word rewritten in a few neurons is said of its picture",
    "R2": "It is said of another picture of the thing, more than with other neurons",
    "R3": "Other things keep their words",
    "R4": "The change is smaller than with other neurons",
    "S1": "Words rewritten one after the other are all said in the end",
    "S2": "They are said of other pictures of the things, more than with as many random units",
    "S3": "They are said behind another prompt, more than with as many random units",
    "S4": "Other things keep their words",
    "S5": "They carry over to other pictures further than neurons rewritten one after the other",
    "A1": "A word is lost with its vector, more than with another word's",
    "A2": "With another word's vector it is hardly lost",
}
SOURCES = {
    "R": "Pan et al. (2024), arXiv:2311.07470",
    "S": "NSE, Jiang et al. (2025), arXiv:2410.04045",
    "A": "PROJECTAWAY, Jiang et al. (2025), arXiv:2410.02762",
}
QUESTIONS: dict[str, Any] = {"R": rewriting, "S": sequences, "A": removals}
TITLES = {
    "R1": "Is a rewritten word said of its picture?",
    "R2": "Is it said of another picture of the thing?",
    "R3": "Do other things keep their words?",
    "R4": "Is the change small?",
    "S1": "Do words rewritten one after the other hold?",
    "S2": "Are they said of other pictures?",
    "S3": "Are they said behind another prompt?",
    "S4": "Do other things keep their words after a sequence?",
    "S5": "Is NSE ahead of rewriting neurons one after the other?",
    "A1": "Is a word lost with its vector?",
    "A2": "Is it spared by another word's vector?",
}
_LESS = "The same answers, less those of the control."
HOW = {
    "R1": "On one picture the output rows of the first neurons by contribution score are changed by"
    " as little as possible, so that another noun leads where its own was said; then that picture,"
    " a second one with the same noun and pictures of other things are asked. The control: as many"
    " other neurons of the same layers, active ones first. The size of a change is its length over"
    " that of the rows that are changed.",
    "R2": _LESS,
    "R3": "Asked is whether pictures of other things are given the noun that they had.",
    "R4": "The length of the change, over that of the rows that are changed.",
    "S1": "The first pictures of several nouns are rewritten one after the other, each to say a"
    " noun that is none of them; the model after all edits is asked. Values come from the model"
    " before any edit. The size of a change is its length over that of all output rows.",
    "S2": _LESS,
    "S3": "Pictures whose noun the model says behind the other prompt, too.",
    "S4": "Asked is whether pictures of other things are given the noun that they had.",
    "S5": "The same answers, less those of `rewrite` of the first neurons by contribution score,"
    " which keeps what these write at earlier prompts.",
    "A1": "The vector of the first noun of the caption is projected out of the stream at the"
    " picture's patches; beside it that of a word that is not in the picture, and a random"
    " direction. What is lost of the noun's probability is a share of what there was.",
    "A2": "The vectors of all words share some of their length: this is how much.",
}
Judge = tuple[str, str, str, str]
"""What is compared: a measure, an arm, the arm it is compared with (or none), and how."""
JUDGES: dict[str, Judge] = {
    "R1": (SAME, OWN, "", "holding"),
    "R2": (SECOND, OWN, OTHER_UNITS, "above"),
    "R3": (THINGS, OWN, "", "holding"),
    "R4": (SIZE, OWN, OTHER_UNITS, "below"),
    "S1": (SAME, NSE, "", "holding"),
    "S2": (SECOND, NSE, RANDOM_UNITS, "above"),
    "S3": (BEHIND, NSE, RANDOM_UNITS, "above"),
    "S4": (THINGS, NSE, "", "holding"),
    "S5": (SECOND, NSE, ROWS, "above"),
    "A1": ("lost", OWN_VECTOR, OTHER_VECTOR, "above"),
    "A2": ("lost", OTHER_VECTOR, "", "little"),
}
MEASURES = {
    SAME: "the same picture: says the new word",
    SECOND: "another picture: says the new word",
    BEHIND: "another prompt: says the new word",
    THINGS: "other things: say their own word",
    SIZE: "size of the change",
    "lost": "lost of the noun's probability",
}
SAID = {
    SAME: "The same picture is given the new word",
    SECOND: "Another picture of the thing is given the new word",
    BEHIND: "Behind another prompt the new word is said",
    THINGS: "Other things keep their word",
    SIZE: "The size of the change",
    "lost": "Lost of the noun's probability",
}
OF = {"R": "nouns", "S": "sequences", "A": "pictures"}
ARMS = {
    "R": (OWN, OTHER_UNITS),
    "S": (NSE, RANDOM_UNITS, ROWS, NOISE),
    "A": (OWN_VECTOR, OTHER_VECTOR, RANDOM),
}


def judged(kind: str, table: pd.DataFrame, **how: Any) -> list[Part]:
    """The parts of one paper's claims.

    Args:
        kind: "R", "S" or "A". table: of its question.
        how: draws and seed of the bootstrap.
    """
    found = QUESTIONS[kind].summary(table, **how)
    return [_part(key, found) for key in CLAIMS if key[0] == kind]


def unmeasured(kind: str, reason: str) -> list[Part]:
    """The parts of claims that could not be asked, with the reason."""
    says = f"Not measured: {reason}"
    return [Part(key, TITLES[key], HOW[key], says, Verdict(key, CLAIMS[key], None, says))
            for key in CLAIMS if key[0] == kind]  # fmt: skip


def _part(key: str, found: pd.DataFrame) -> Part:
    metric, arm, other, how = JUDGES[key]
    rows = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    kind, own, gap = key[0], rows.get((arm, metric)), rows.get((f"{arm} - {other}", metric))
    if own is None or (other and gap is None):
        return next(one for one in unmeasured(kind, f"nothing was asked of {metric}.")
                    if one.key == key)  # fmt: skip
    says = f"{SAID[metric]}: {arm} {told_interval(own)}"
    counted: Any = own
    if gap is not None:
        counted = gap
        says += f", {other} {told_interval(rows[(other, metric)])}: a difference of"
        says += f" {told_interval(gap)}"
    says += f", in {counted['n']} {OF[kind]}."
    bound = {"holding": HOLDS, "little": LITTLE}.get(how, 0.0)
    side = "below" if how in ("below", "little") else "above"
    name = {"lost": "the share lost", SIZE: "the size"}.get(metric, f"“{metric}”")
    whose = f"({arm} - {other}) of {name}" if other else f"{name}, {arm},"
    rule = (
        f"it holds if the interval of {whose} lies {side} {bound:g}, and fails if it lies"
        f" {'above' if side == 'below' else 'below'}."
    )
    holds = (below if side == "below" else above)(counted, bound)
    more: dict[str, Any] = {}
    if key in ("R1", "S1", "A1"):
        more = {"table": _every(kind, rows), "summary": found, "draw": _drawn(kind, found)}
    else:
        more["rows"] = [Row(arm, told_interval(own))]
        more["rows"] += [] if gap is None else [Row(f"{arm} - {other}", told_interval(gap))]
    return Part(key, TITLES[key], HOW[key], says, Verdict(key, CLAIMS[key], holds, says),
                rule, **more)  # fmt: skip


def _metrics(kind: str) -> Sequence[str]:
    return {"R": (SAME, SECOND, THINGS, SIZE), "S": (SAME, SECOND, BEHIND, THINGS, SIZE),
            "A": ("lost",)}[kind]  # fmt: skip


def _every(kind: str, rows: dict[Any, Any]) -> list[list[str]]:
    """All arms, and the first less each of the others, by measure."""
    metrics, (first, *others) = _metrics(kind), ARMS[kind]
    lines = [["", *(MEASURES[one] for one in metrics)]]
    for arm in [*ARMS[kind], *(f"{first} - {other}" for other in others)]:
        cells = [told_interval(rows[arm, one]) if (arm, one) in rows else "" for one in metrics]
        lines.append([arm, *cells])
    return lines


def _drawn(kind: str, found: Any) -> Any:
    panels = [one for one in _metrics(kind) if one != SIZE]
    shown = found[found["metric"].isin(panels)].rename(columns={"metric": "panel"})
    title = {"R": "Said after a word was rewritten", "S": "Said after all edits of a sequence",
             "A": "Lost of the noun's probability without"}[kind]  # fmt: skip
    arms = {arm: arm for arm in ARMS[kind]}
    return partial(strips, shown, arms, title, "with 95 % intervals", panels=panels)
