"""What several commands print and check: tables, JSON, the folder of a page.

A table never cuts a name: in a pipe a row is as long as it needs to be, and in a narrow terminal
text goes on in the next line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmlens.values.errors import MMLensError

_ENDLESS = 10_000
"""Columns where no person reads them."""


def console() -> Any:
    """Standard output: as wide as the terminal, without an end in a pipe or a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_ENDLESS)


def print_json(value: Any) -> None:
    """Results as JSON; tables become lists of rows, and labels their names."""
    import typer

    typer.echo(json.dumps(_plain(value), indent=1, ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return [_plain(row) for row in value.to_dict("records")]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    return None if isinstance(value, float) and value != value else value


def table_of_lines(apart: bool = True) -> Any:
    """A table without a frame.

    Args:
        apart: in a terminal a blank line stands between rows, which may be of several lines.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, leading=int(apart and sys.stdout.isatty()))


def broken_at_dots(name: str, room: int) -> str:
    """A dotted name in lines of at most `room` letters, which break between its parts alone."""
    lines = [""]
    for part in re.findall(r"[^.]+\.?", name):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("  " + part)
        else:
            lines[-1] += part
    return "\n".join(lines)


def check_folder(page: Path) -> None:
    """Before the work is done: there is a place to write its result to."""
    import os

    if not os.path.isdir(page.parent):
        raise MMLensError(
            f"There is no folder {str(page.parent)!r} for the page: make it, or give another --out."
        )
    if os.path.isdir(page):  # Path.is_dir raises where a name is too long
        raise MMLensError(f"{str(page)!r} is a folder: give --out a file, such as page.html.")


def tell_claims(verdicts: Sequence[Any], page: Any, markdown: Any, as_json: bool) -> None:
    """Every claim with its verdict, and where the report is."""
    import typer

    told = [one for one in verdicts if one is not None]
    if as_json:
        claims = [
            {
                "experiment": one.experiment,
                "verdict": one.word,
                "claim": one.claim,
                "says": one.says,
            }
            for one in told
        ]
        print_json({"claims": claims, "page": str(page), "markdown": str(markdown)})
        return
    for one in told:
        typer.echo(f"{one.experiment} {one.word}: {one.claim}. {one.says}")
    typer.echo(f"\nPage: {page}\nMarkdown: {markdown}")
