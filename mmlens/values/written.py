"""Functions that callers give: how they are written down, and with how many arguments they go.

    written(partial(noised, 3))      # "partial(noised, 3)"
    written(lambda x: x)             # "lambda x"
    accepts(noised, 2)               # whether noised(a, b) is a call that Python takes

A function has a name and no address of memory, so that what is written of one run can be compared
with what is written of another. Whether a call fits is read off the signature: the function is not
called, and what it raises itself stays its own.
"""

from __future__ import annotations

import functools
import inspect
import re
import reprlib
from collections.abc import Iterable
from typing import Any


def written(value: Any) -> str:
    """A value as results and displays write it: functions by name, nothing with an address."""
    if isinstance(value, functools.partial):
        given = [_argument(one) for one in value.args]
        given += [f"{name}={_argument(one)}" for name, one in value.keywords.items()]
        return f"partial({', '.join([written(value.func), *given])})"
    if inspect.ismethod(value):
        return f"{short(value.__self__)}.{value.__name__}"
    if inspect.isroutine(value):
        name = value.__qualname__.rpartition("<locals>.")[2]
        return f"lambda {', '.join(_names(value))}" if name == "<lambda>" else name
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def accepts(function: Any, many: int, names: Iterable[str] = ()) -> bool:
    """Whether a function can be called with so many arguments by position, and these by name.

    True of one that has no signature to read (some are written in C).
    """
    asked = function
    if hasattr(function, "register_forward_hook"):  # a module of torch, called by its forward
        asked = function.forward
    try:  # a decorator's own signature counts, and not that of what it wraps
        signature = inspect.signature(asked, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * many, **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _names(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ["..."]


def _argument(value: Any) -> str:
    """An argument of a partial: an array by its shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape):
        return f"{type(value).__name__} {'x'.join(map(str, value.shape))}"
    return short(value)


class _Short(reprlib.Repr):
    """reprlib's, with functions by their names and no addresses of memory."""

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            told = written(x)
        except Exception:  # as reprlib does: an object's own repr may raise anything
            return f"<{type(x).__name__} instance>"
        if len(told) <= self.maxother or inspect.isroutine(x) or isinstance(x, functools.partial):
            return told
        start = (self.maxother - 3) // 2
        return f"{told[:start]}...{told[len(told) - (self.maxother - 3 - start) :]}"


short = _Short().repr
"""An object in few letters."""
