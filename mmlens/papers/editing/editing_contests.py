"""The study's contests: ways to change what is said, each against a control of its own."""

from __future__ import annotations

import pandas as pd

from mmlens.papers.contests import Contest
from mmlens.papers.editing.questions import removals, rewriting, sequences
from mmlens.papers.editing.questions.removals import OTHER_VECTOR, OWN_VECTOR
from mmlens.papers.editing.questions.rewriting import OTHER_UNITS, OWN, SECOND, THINGS
from mmlens.papers.editing.questions.sequences import NSE, RANDOM_UNITS

REWRITE, IN_A_ROW = "`rewrite`, first of `contributions`", "`rewrite_in_sequence` (NSE)"
AWAY = "`project_away`"
MEASURED = {
    SECOND: "another picture of the thing says the new word",
    THINGS: "pictures of other things say their own word",
}
ALONE = (
    "Does a rewritten word hold on another picture of the thing?",
    "Does rewriting a word leave other things alone?",
)
SEVERAL = (
    "Do words rewritten one after the other hold on other pictures of the things?",
    "Do words rewritten one after the other leave other things alone?",
)
TAKEN_OUT = "Is a word lost when its vector is taken out of the picture?"


def contests(tables: dict[str, pd.DataFrame]) -> list[Contest]:
    """Generality and locality of rewriting, and removal, of the tables that there are.

    Args:
        tables: of the questions, by "R", "S" and "A".
    """
    made = []
    for kind, one, own, method, control, asked in (
        ("R", rewriting, OWN, REWRITE, OTHER_UNITS, ALONE),
        ("S", sequences, NSE, IN_A_ROW, RANDOM_UNITS, SEVERAL),
    ):
        if kind not in tables:
            continue
        rows = one.values(tables[kind]).replace({"arm": {own: method}})
        for (metric, what), question in zip(MEASURED.items(), asked, strict=True):
            here = rows[rows["metric"] == metric]
            made.append(Contest(question, what, here, {method: control}, within=(0.0, 1.0)))
    if "A" in tables:
        rows = removals.values(tables["A"]).replace({"arm": {OWN_VECTOR: AWAY}})
        lost = "lost of the noun's probability"
        made.append(Contest(TAKEN_OUT, lost, rows, {AWAY: OTHER_VECTOR}))
    return made
