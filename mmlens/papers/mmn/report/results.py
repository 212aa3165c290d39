"""The report as Markdown: verdicts, our numbers beside the paper's, what differs and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.papers.mmn.report.paper import CITED
from mmlens.papers.mmn.report.report_page import tally
from mmlens.papers.mmn.report.told import HOW, RULES, UNDECIDED, Finding, Row
from mmlens.papers.mmn.report.verdicts import Verdict


def results(
    findings: Sequence[Finding], *, title: str, lead: str, command: str, about: Mapping[str, Any]
) -> str:
    """The Markdown as text.

    Args:
        command: what writes this file again.
    """
    verdicts = [one.verdict for one in findings if one.verdict is not None]
    lines = [
        f"# {_text(title)}",
        f"{_text(lead)} The paper: {CITED}. Written by `{command}`; intervals are 95 % bootstrap"
        " intervals over pictures.",
        f"## {tally(verdicts)}",
        _table(["", "claim", "", "in numbers"], [_claim(one) for one in verdicts]),
    ]
    for one in findings:
        name = f"{one.key}: " if one.key in HOW and one.key.startswith("E") else ""
        lines += [
            f"## {name}{one.title}",
            f"{HOW[one.key]} {one.pictures}".strip(),
            f"**{_text(one.says)}**",
        ]
        if one.rows:
            lines.append(_beside(one.rows))
        if one.table:
            lines.append(_table(one.table[0], one.table[1:]))
        if one.key in RULES:
            lines.append(f"The rule: {RULES[one.key]} {UNDECIDED}")
        if one.differs:
            lines.append("\n".join(f"- {_text(text)}" for text in one.differs))
    lines += ["## Where the numbers come from"]
    lines += [_table(["", ""], [[name, str(value)] for name, value in about.items()])]
    return "\n\n".join(lines) + "\n"


def _claim(verdict: Verdict) -> list[str]:
    return [verdict.experiment, verdict.claim, f"**{verdict.word}**", verdict.says]


def _beside(rows: Sequence[Row]) -> str:
    if any(row.paper for row in rows):
        return _table(["", "here", "in the paper", "where"], [list(row) for row in rows])
    return _table(["", "here"], [[row.what, row.here] for row in rows])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_in_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _in_cell(text: str) -> str:
    bold = text.startswith("**") and text.endswith("**")
    return text if bold else _text(text)


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in ("\\", "|", "<", "*", "_", "`", "~"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
