"""What the Markdown of a study is made of: tables, and text that is shown as it is."""

from __future__ import annotations

from collections.abc import Sequence

from mmlens.papers.claims import Row


def marked_beside(rows: Sequence[Row]) -> str:
    """Our numbers beside the paper's."""
    if any(row.paper for row in rows):
        return marked_table(["", "here", "in the paper", "where"], [list(row) for row in rows])
    return marked_table(["", "here"], [[row.what, row.here] for row in rows])


def marked_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its head first."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_in_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _in_cell(text: str) -> str:
    bold = text.startswith("**") and text.endswith("**")
    return text if bold else marked_text(text)


def marked_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in ("\\", "|", "<", "*", "_", "`", "~"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
