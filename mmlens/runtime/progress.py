"""Progress of what takes its time: a bar on standard error after two seconds.

    for sender in tracked(senders, "path_patching"): ...
    with bar("patch", 6656, progress) as step: step(done)

A bar is shown where a person looks, in a terminal or a notebook, and only the outermost one is:
what a loop over pairs or a sweep does inside is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, TypeVar

from mmlens.values.arguments import function

T = TypeVar("T")
Progress = Callable[[int, int], Any]
"""A function of (done, of)."""
AFTER = 2.0
"""Seconds before a bar is shown."""
_within: ContextVar[bool] = ContextVar("within a bar", default=False)


@contextmanager
def bar(
    what: str, total: int, progress: Progress | bool | None = None
) -> Iterator[Callable[[int], None]]:
    """A context whose function is told how much is done.

    Args:
        progress: a function that is called with (done, of) instead; False for nothing at all.
    """
    if progress is not None and not isinstance(progress, bool):
        told = function(progress, "progress", "a function of (done, of), True or False",
                        takes=2)  # fmt: skip
        yield lambda done: told(done, total)
        return
    if progress is False or _within.get():
        yield lambda done: None
        return
    shown = _Shown(what, total)
    token = _within.set(True)
    try:
        yield shown.step
    finally:
        _within.reset(token)
        shown.stop()


def tracked(
    members: Iterable[T], what: str, progress: Progress | bool | None = None
) -> Iterator[T]:
    """The members one after the other, with a bar; those without a length where it is asked."""
    if not isinstance(members, Sized):
        members = list(members) if progress else members
    total = len(members) if isinstance(members, Sized) else 0
    with bar(what, total, progress if total else False) as step:
        for done, member in enumerate(members, 1):
            yield member
            step(done)


def over_all(progress: Any, many: int) -> Callable[[int], Any]:
    """One count for several parts that each tell how far they are: by number, a part's progress.

    Args:
        progress: of the whole; what is no function is that of every part.
        many: how many parts there are. Each counts as much as the first.
    """
    if progress is None or isinstance(progress, bool):
        return lambda at: progress
    told = function(progress, "progress", "a function of (done, of), True or False", takes=2)
    size: list[int] = []

    def part(at: int) -> Progress:
        def tell(done: int, of: int) -> None:
            size[:] = size or [max(of, 1)]
            told(at * size[0] + done * size[0] // max(of, 1), many * size[0])

        return tell

    return part


@contextmanager
def outermost() -> Iterator[None]:
    """Within this context no bar is shown: whoever opened it shows its own."""
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)


class _Shown:
    """A bar that appears when two seconds are over."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.start = what, total, monotonic()
        self.live: Any = None

    def step(self, done: int) -> None:
        if self.live is None and monotonic() - self.start > AFTER:
            self.live = _live()
            self.task = self.live.add_task(self.what, total=self.total)
            self.live.start()
        if self.live is not None:
            self.live.update(self.task, completed=done)

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()


def _live() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Live

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    looked_at = console.is_terminal or console.is_jupyter
    return Live(*columns, console=console, disable=not looked_at, transient=True)
