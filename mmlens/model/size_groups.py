"""Which crops of a prompt's pictures the encoder reads now, where crops have several sizes.

Crops of one size are read in one batch, and those of another size in the next. An edit is given for
all crops; in each batch it acts on the rows that are there. Hooks would see a part of the crops
without knowing which, so that they are refused (`mmlens.model.image_reader.seen`), but for those
that ask which (`asking`, `crops_now`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from mmlens.values.addresses import POSITIONS, places
from mmlens.values.errors import AddressError

_now: ContextVar[tuple[int, ...] | None] = ContextVar("mmlens_crops", default=None)
_asking: ContextVar[bool] = ContextVar("mmlens_asks_for_crops", default=False)


@contextmanager
def encoding(crops: Sequence[int] | None) -> Iterator[None]:
    """Within this context the encoder reads these of all crops; None: all of them."""
    token = _now.set(None if crops is None else tuple(crops))
    try:
        yield
    finally:
        _now.reset(token)


@contextmanager
def asking(every: bool) -> Iterator[None]:
    """Within this context all hooks (with `every`) ask which crops they see."""
    token = _asking.set(every)
    try:
        yield
    finally:
        _asking.reset(token)


def asked() -> bool:
    """Whether the hooks of now ask which crops they see."""
    return _asking.get()


def crops_now() -> tuple[int, ...] | None:
    """The crops that the encoder reads now; None: all of the prompts."""
    return _now.get()


def present(change: Any) -> Any:
    """An edit in one layer with the rows of the crops that are read now; None: it has none here.

    Args:
        change: with `edit`, `layer`, `rows` and `keys`, one row per crop.
    """
    now = _now.get()
    if now is None or not change.rows:
        return change
    rows = tuple(change.rows[crop] for crop in now)
    if not _meets(change, rows) and _meets(change, change.rows):
        return None
    keys = tuple(change.keys[crop] for crop in now) if change.keys else ()
    return replace(change, rows=rows, keys=keys)


def _meets(change: Any, rows: Sequence[Any]) -> bool:
    """Whether the edit's positions are in one of these rows."""
    return any(_is_in(change, row) for row in rows)


def _is_in(change: Any, row: Any) -> bool:
    site = change.edit.site
    own = [axis for axis in site.axes if axis in POSITIONS]
    try:
        for axis in own if not site.has_other_keys else [one for one in own if one != "key"]:
            places(row, change.edit.wanted(axis, change.layer), axis)
    except AddressError:
        return False
    return True
