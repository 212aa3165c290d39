"""The progress of a sweep on standard error."""

from __future__ import annotations

from time import monotonic
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmlens.runtime.progress import outermost


class Bar:
    """Samples done and in all, their rate, and bytes on disk."""

    def __init__(self, total: int, shown: bool, what: str = "sweep") -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f}/s"),
            TextColumn("{task.fields[size]}"),
            TimeRemainingColumn(),
        )
        self.inside = outermost()
        self.bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self.task = self.bar.add_task(what, total=total, rate=0.0, size=decimal(0))
        self.done, self.bytes, self.start = 0, 0, monotonic()

    def __enter__(self) -> Bar:
        self.inside.__enter__()
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()
        self.inside.__exit__(None, None, None)

    def step(self) -> None:
        """Another sample is done."""
        self.done += 1
        rate = self.done / max(monotonic() - self.start, 1e-9)
        self.bar.update(self.task, advance=1, rate=rate)

    def wrote(self, size: int) -> None:
        """Add bytes written to disk."""
        self.bytes += size
        self.bar.update(self.task, size=decimal(self.bytes))
