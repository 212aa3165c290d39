"""Locks: parts that several models share are run by one thread, and one run, at a time.

TransformerLens' hooks are attached to hook points, and these belong to the encoder and the language
model, not to the models made of them. So each part has its lock (`turn`), and a run that begins
inside a hook of another one starts without hooks (`alone`): the outer run's hooks are detached and
attached again when the inner one has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from mmlens.values.errors import CapabilityError

Place = Callable[[ExitStack], None]
"""Attaches hooks; closing the stack removes them."""
_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_guard = threading.Lock()
_run: ContextVar[_Standing | None] = ContextVar("mmlens_standing", default=None)
DEEPEST = 8
"""The largest depth of nested runs."""


def lock_of(part: Any) -> Any:
    """The lock of a part, one for all models that hold it; a thread may take it twice."""
    with _guard:
        return _locks.setdefault(part, threading.RLock())


@contextmanager
def turn(*parts: Any) -> Iterator[None]:
    """A context in which no other thread runs these parts (None is skipped)."""
    with ExitStack() as stack:
        for part in sorted((part for part in parts if part is not None), key=id):
            stack.enter_context(lock_of(part))
        yield


class _Standing:
    """The hooks of one run, which can be detached and attached again."""

    def __init__(self, place: Place, depth: int) -> None:
        self.place, self.depth, self.stack = place, depth, ExitStack()

    def come(self) -> None:
        with ExitStack() as stack:  # on failure, hooks attached so far are removed
            self.place(stack)
            self.stack = stack.pop_all()

    def leave(self) -> None:
        self.stack.close()


@contextmanager
def alone(place: Place, root: Any = None) -> Iterator[None]:
    """A context with the hooks of `place` attached and those of an outer run detached.

    Args:
        root: the language model that runs, if one does.

    Raises:
        CapabilityError: a function calls the model that it is part of, recursively.
    """
    outer = _run.get()
    mine = _Standing(place, 1 if outer is None else outer.depth + 1)
    if mine.depth > DEEPEST:
        raise CapabilityError(
            f"{DEEPEST} runs are nested: the function of an edit or a hook runs the"
            " model that it is part of. Run that model before, and let the function use its answer."
        )
    with ExitStack() as stack:
        if outer is not None:
            outer.leave()
            stack.callback(outer.come)
            stack.enter_context(_untouched(root))
        token = _run.set(mine)
        stack.callback(_run.reset, token)
        mine.come()
        stack.callback(mine.leave)
        yield


def running() -> bool:
    """Whether this thread is inside a run."""
    return _run.get() is not None


@contextmanager
def _untouched(root: Any) -> Iterator[None]:
    """A context without the outer run's settings of the blocks: where it stops, what it skips."""
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in (*getattr(root, "blocks", ()), getattr(root, "pos_embed", None)):
        if module is not None:
            own = vars(module)
            names = [name for name in ("_stop_at_layer_idx", "_current_batch_size") if name in own]
            if getattr(own.get("forward"), "__module__", "") == "mmlens.causal.prefix_reuse":
                names.append("forward")
            kept.append((own, {name: own.pop(name) for name in names}))
    try:
        yield
    finally:
        for own, values in kept:
            own.update(values)
