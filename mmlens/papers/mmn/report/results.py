"""The report as Markdown: verdicts, our numbers beside the paper's, what differs and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.papers.claims import Verdict
from mmlens.papers.markdown_parts import marked_beside, marked_table, marked_text
from mmlens.papers.mmn.report.paper import CITED
from mmlens.papers.mmn.report.report_page import tally
from mmlens.papers.mmn.report.told import HOW, RULES, UNDECIDED, Finding


def results(
    findings: Sequence[Finding], *, title: str, lead: str, command: str, about: Mapping[str, Any]
) -> str:
    """The Markdown as text.

    Args:
        command: what writes this file again.
    """
    verdicts = [one.verdict for one in findings if one.verdict is not None]
    lines = [
        f"# {marked_text(title)}",
        f"{marked_text(lead)} The paper: {CITED}. Written by `{command}`; intervals are 95 %"
        " bootstrap intervals over pictures.",
        f"## {tally(verdicts)}",
        marked_table(["", "claim", "", "in numbers"], [_claim(one) for one in verdicts]),
    ]
    for one in findings:
        name = f"{one.key}: " if one.key in HOW and one.key.startswith("E") else ""
        lines += [
            f"## {name}{one.title}",
            f"{HOW[one.key]} {one.pictures}".strip(),
            f"**{marked_text(one.says)}**",
        ]
        if one.rows:
            lines.append(marked_beside(one.rows))
        if one.table:
            lines.append(marked_table(one.table[0], one.table[1:]))
        if one.key in RULES:
            lines.append(f"The rule: {RULES[one.key]} {UNDECIDED}")
        if one.differs:
            lines.append("\n".join(f"- {marked_text(text)}" for text in one.differs))
    lines += ["## Where the numbers come from"]
    lines += [marked_table(["", ""], [[name, str(value)] for name, value in about.items()])]
    return "\n\n".join(lines) + "\n"


def _claim(verdict: Verdict) -> list[str]:
    return [verdict.experiment, verdict.claim, f"**{verdict.word}**", verdict.says]
