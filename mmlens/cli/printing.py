"""What several commands print and check: tables on a terminal, the folder of a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mmlens.values.errors import MMLensError


def table_of_lines() -> Any:
    """A table without a frame."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, leading=1 if sys.stdout.isatty() else 0)


def check_folder(page: Path) -> None:
    """Before the work is done: there is a place to write its result to."""
    import os

    if not os.path.isdir(page.parent):
        raise MMLensError(
            f"There is no folder {str(page.parent)!r} for the page: make it, or give another --out."
        )
    if os.path.isdir(page):  # Path.is_dir raises where a name is too long
        raise MMLensError(f"{str(page)!r} is a folder: give --out a file, such as page.html.")
