"""The paper's claims, judged from what labels and captions name.

L1 theirs    the labels are those of the picture, and not of any
L2 more      labels name more of what is there than the caption does
L3 as many   and do so with no more labels than there are things
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.labels.questions.label_names import CAPTION, COLUMNS, LABELS
from mmlens.papers.study_folder import above, by_arm, told_interval
from mmlens.papers.study_report import Part
from mmlens.papers.tables import used

ALL, AS_MANY = "all labels", "as many labels as things"
OF_OTHERS, CAPTION_OF_OTHERS = "as many labels of other pictures", "captions of other pictures"
CLAIMS = {
    "L1": "The labels are those of the picture",
    "L2": "Labels name more of what is there than the caption does",
    "L3": "They do so with no more labels than there are things",
}
TITLES = {
    "L1": "Are the labels those of this picture?",
    "L2": "Do labels name more than a caption?",
    "L3": "Also with no more of them than there are things?",
}
_HOW = (
    "Labels are the most probable names after a prompt, each read without the others; recall is the"
    " share of the picture's things that are among them."
)
HOW = {
    "L1": f"{_HOW} Here the first n labels of a picture of n things, beside the first n of every"
    " other picture.",
    "L2": f"{_HOW} Here all labels, beside the things that the model's greedy caption names.",
    "L3": "The same of the first n labels of a picture of n things.",
}
PAIRS = {"L1": (AS_MANY, OF_OTHERS), "L2": (ALL, CAPTION), "L3": (AS_MANY, CAPTION)}
ARMS = (ALL, AS_MANY, OF_OTHERS, CAPTION, CAPTION_OF_OTHERS)


def recalls(table: pd.DataFrame) -> pd.DataFrame:
    """sample, arm, metric "share", value: recall of the picture's things by each arm.

    Args:
        table: of `named_things`.
    """
    rows = used(table, *COLUMNS)
    named = {
        (row["sample"], row["arm"]): json.loads(row["named"]) for row in rows.to_dict("records")
    }
    true = {row["sample"]: set(json.loads(row["there"])) for row in rows.to_dict("records")}
    found = []
    for sample, things in true.items():
        n = len(things)
        own = {arm: named[sample, arm] for arm in (LABELS, CAPTION)}
        others = [one for one in true if one != sample]
        values = {
            ALL: _recall(own[LABELS], things),
            AS_MANY: _recall(own[LABELS][:n], things),
            CAPTION: _recall(own[CAPTION], things),
        }
        if others:
            values[OF_OTHERS] = sum(_recall(named[one, LABELS][:n], things) for one in others)
            values[CAPTION_OF_OTHERS] = sum(_recall(named[one, CAPTION], things) for one in others)
            for arm in (OF_OTHERS, CAPTION_OF_OTHERS):
                values[arm] /= len(others)
        found += [{"sample": sample, "arm": arm, "metric": "share", "value": value}
                  for arm, value in values.items()]  # fmt: skip
    return pd.DataFrame(found)


def _recall(names: list[str], things: set[str]) -> float:
    return len(things & set(names)) / len(things)


def contest(table: pd.DataFrame) -> Contest:
    """Labels and captions, each against those of other pictures."""
    return Contest(
        "Which things does it name?",
        "recall of the picture's things",
        recalls(table),
        {AS_MANY: OF_OTHERS, CAPTION: CAPTION_OF_OTHERS},
        control="what is said of other pictures",
        within=(0.0, 1.0),
    )


def judged(key: str, table: pd.DataFrame, **how: Any) -> Part:
    """The part of one claim.

    Args:
        table: of `named_things`.
        how: draws and seed of the bootstrap.
    """
    one, other = PAIRS[key]
    rows = recalls(table)
    if not {one, other} <= set(rows["arm"]):
        return _part(key, "Not measured: there is one picture.", None)
    found: Any = summarise(with_differences(rows, (one, other)), ["arm", "metric"], **how)
    each = by_arm(found)
    gap = each[f"{one} - {other}"]
    says = (
        f"Recall of {one} {told_interval(each[one])}, of {'the ' * (other == CAPTION)}{other}"
        f" {told_interval(each[other])}: a difference of {told_interval(gap)}, in {gap['n']}"
        " pictures."
    )
    told = [
        Row(arm, told_interval(each[arm])) for arm in (*ARMS, f"{one} - {other}") if arm in each
    ]
    more: dict[str, Any] = {"rows": told, "summary": found.drop(columns="metric")}
    if key == "L1":
        shown = found.assign(panel="recall")
        more["draw"] = partial(strips, shown, {arm: arm for arm in ARMS},
                               "Recall of the picture's things", "with 95 % intervals")  # fmt: skip
    return _part(key, says, above(gap), **more)


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    one, other = PAIRS[key]
    rule = (
        f"it holds if the interval of ({one} - {other}) lies above 0, and fails if it lies below."
    )
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], HOW[key], says, verdict, rule, **more)
