"""The table of open choices: what each reading of the paper changes, one line per choice."""

from __future__ import annotations

from typing import Any

from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.verdicts import P


def choices_table(found: Outcome) -> list[list[str]]:
    """What each reading changes: a head, and a line per reading with its means."""
    table: Any = found.summary
    metrics = list(dict.fromkeys(table["metric"]))
    lines = [["choice", *metrics]]
    for arm in dict.fromkeys(table["arm"]):
        if not arm.endswith(" - default"):
            lines.append([arm, *(_changed(found, arm, metric) for metric in metrics)])
    return lines


def _changed(found: Outcome, arm: str, metric: str) -> str:
    own = found.rows(arm=arm, metric=metric)
    if not len(own):
        return "–"
    text = f"{own['mean'].iloc[0]:.3f}"
    for gap in found.rows(arm=f"{arm} - default", metric=metric).to_dict("records"):
        if gap["p"] <= P:  # corrected for the number of comparisons
            text += f" ({gap['mean']:+.3f})"
    return text
