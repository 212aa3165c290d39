"""The part of a docs page that a script writes: what stands between two marks."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, begin: str, end: str, found: str) -> None:
    """Put `found` between the marks `begin` and `end` of a page, in place of what stands there."""
    text = page.read_text("utf-8")
    start, stop = text.index(begin) + len(begin), text.index(end)
    page.write_text(f"{text[:start]}\n\n{found}\n\n{text[stop:]}", "utf-8")
