"""The findings as parts of a report, and the report as one HTML file that needs no network.

The frame is that of all studies (`mmlens.papers.study_report`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from mmlens.papers.mmn.report.figures import figure
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.paper import CITED
from mmlens.papers.mmn.report.sheets import Sheet
from mmlens.papers.mmn.report.told import HOW, READ, RULES, UNDECIDED, Finding
from mmlens.papers.study_report import Frame, Part, report_page

NAMES = {"faithfulness": "methods", "sensitivity": "choices"}


def page(
    findings: Sequence[Finding],
    measured: Mapping[str, Outcome],
    sheets: Sequence[Sheet],
    *,
    title: str,
    lead: str,
    about: Mapping[str, Any],
) -> str:
    """The page as text."""
    parts = [part_of(one, measured[one.key], sheets) for one in findings]
    return report_page(Frame("mmn", title, lead, READ, CITED, about), parts)


def part_of(one: Finding, found: Outcome | None = None, sheets: Sequence[Sheet] = ()) -> Part:
    """A finding as a part of the report; figures and all numbers where they are given."""
    shown: dict[str, Any] = {}
    if found is not None:
        shown["draw"] = partial(figure, found)
        if len(found.summary):
            shown |= {"source": _from(found)}
            shown |= {"summary": found.summary} if one.key != "E7" else {}
    if one.key == "E7" and found is not None:
        shown["inner"] = f'<div class="sheets">{"".join(_sheet(sheet) for sheet in sheets)}</div>'
    return Part(
        one.key, one.title, f"{HOW[one.key]} {one.pictures}".strip(), one.says, one.verdict,
        f"{RULES[one.key]} {UNDECIDED}" if one.key in RULES else "",
        one.rows, one.table, one.differs, name=NAMES.get(one.key, one.key),
        numbered=one.key.startswith("E"), **shown,
    )  # fmt: skip


def _from(found: Outcome) -> tuple[str, str]:
    """How it was asked: pictures, skipped ones; all options."""
    asked = ", ".join(f"sweep {name}: {n} pictures" for name, n in found.asked.items())
    if "experiment" in found.summary.columns:
        asked += f"; {int(found.summary['skipped'].iloc[0])} skipped"
    return asked, str(found.summary["options"].iloc[0])


def _sheet(sheet: Sheet) -> str:
    told = escape(sheet.caption.strip())
    noun = escape(sheet.noun)
    told = re.sub(
        rf"(?<!\w){re.escape(noun)}(?!\w)", lambda found: f"<b>{found[0]}</b>", told, count=1
    )
    small = ' class="small"' if sheet.small else ""
    units = "".join(
        f'<li><span class="unit">{escape(neuron)}</span>'
        f'<span class="words{" speaks" if speaks else ""}">{escape(words)}</span></li>'
        for neuron, words, speaks in sheet.units
    )
    return (
        f'<figure class="sheet"><div class="pair">'
        f'<img{small} src="{sheet.seen}" alt="The picture {escape(sheet.sample, quote=True)}">'
        f'<img src="{sheet.lit}" alt="Where its top units look"></div>'
        f"<figcaption>{told}<ol>{units}</ol></figcaption></figure>"
    )
