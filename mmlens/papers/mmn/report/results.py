"""The report as Markdown: verdicts, our numbers beside the paper's, what differs and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.papers.mmn.report.paper import CITED
from mmlens.papers.mmn.report.report_page import part_of
from mmlens.papers.mmn.report.told import READ, Finding
from mmlens.papers.study_report import Frame, report_markdown


def results(
    findings: Sequence[Finding], *, title: str, lead: str, command: str, about: Mapping[str, Any]
) -> str:
    """The Markdown as text.

    Args:
        command: what writes this file again.
    """
    told = f"Written by `{command}`; intervals are 95 % bootstrap intervals over pictures."
    frame = Frame("mmn", title, lead, READ, CITED, about, told)
    return report_markdown(frame, [part_of(one) for one in findings])
