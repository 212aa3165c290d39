"""Checks of arguments: an error names a wrong one and its valid values.

    count(3, "k")                                # a whole number from 1 on
    count(0, "seed", least=0)
    number(0.5, "share", least=0, most=1)        # finite
    choice("pre", "point", ("pre", "post"))      # another: "did you mean 'pre'?"
    function(tick, "progress", "a function of (done, of)", takes=2)
    several([1, 2], "ks")                        # a list, not a text, not empty
    path("saved", "folder")                      # a text or a Path

Every function returns the value in the annotated type or raises an `ArgumentError`, or `error`
where a module has its own. Whole numbers may be of any integer type (numpy's and torch's, too),
except True and False; a string is not a list.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from mmlens.values.errors import ArgumentError, MMLensError, nearest
from mmlens.values.written import accepts, short

T = TypeVar("T")
Called = TypeVar("Called", bound=Callable[..., Any])
SEEDS = 2**64 - 1
"""The largest seed of torch."""


def count(
    value: Any,
    name: str,
    *,
    least: int = 1,
    most: int | None = None,
    error: type[MMLensError] = ArgumentError,
) -> int:
    """A whole number from `least` to `most`."""
    try:
        whole = operator.index(value) if not _flag(value) else None
    except (TypeError, ValueError):  # the latter from arrays and tensors of several numbers
        whole = None
    if whole is None or whole < least or (most is not None and whole > most):
        span = f"from {least} on" if most is None else f"from {least} to {most}"
        raise error(f"{name}={shown(value)}: write a whole number {span}.")
    return whole


def number(
    value: Any,
    name: str,
    *,
    least: float | int = -math.inf,
    most: float | int = math.inf,
    above: float | int = -math.inf,
    error: type[MMLensError] = ArgumentError,
) -> float:
    """A finite number from `least` (or greater than `above`) to `most`."""
    try:
        real = float(value) if not (_flag(value) or isinstance(value, str | bytes)) else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):
        real = math.nan
    if not (math.isfinite(real) and least <= real <= most and real > above):
        parts = [f"above {above:g}" if above > -math.inf else ""]
        parts += [f"from {least:g}" if least > -math.inf else ""]
        parts += [f"to {most:g}" if most < math.inf else ""]
        span = " ".join(part for part in parts if part)
        raise error(f"{name}={shown(value)}: write a finite number{f' {span}' if span else ''}.")
    return real


def choice(
    value: T, name: str, known: Iterable[T], *, error: type[MMLensError] = ArgumentError
) -> T:
    """One of the known values."""
    there = list(known)
    if not any(type(value) is type(one) and value == one for one in there):
        raise error(f"{name}={shown(value)}: {nearest(str(value), map(str, there))}")
    return value


def several(
    value: Any,
    name: str,
    *,
    least: int = 1,
    what: str = "list",
    error: type[MMLensError] = ArgumentError,
) -> list[Any]:
    """The members of a list, a tuple or another iterable that is no text and no mapping."""
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable | Sequence):
        raise error(f"{name}={shown(value)}: write a {what}, [...].")
    members = list(value)
    if len(members) < least:
        raise error(f"{name}={shown(members)}: write a {what} of at least {least}.")
    return members


def text(
    value: Any, name: str, *, empty: bool = True, error: type[MMLensError] = ArgumentError
) -> str:
    """A text."""
    if not isinstance(value, str) or not (value or empty):
        raise error(f"{name}={shown(value)}: write a text{'' if empty else ' that is not empty'}.")
    return value


def function(
    value: Any,
    name: str,
    write: str,
    *,
    takes: int | None = None,
    error: type[MMLensError] = ArgumentError,
) -> Callable[..., Any]:
    """A callable; `write` says which, as in "a function of (done, of)".

    Args:
        takes: with how many arguments it is called; the function itself is not called here, so
            what it raises is its own.
    """
    if not callable(value):
        raise error(f"{name}={shown(value)} cannot be called: give {write}.")
    if takes is not None and not accepts(value, takes):
        many = f"{takes} argument{'s' * (takes != 1)}"
        raise error(f"{name}={shown(value)} cannot be called with {many}: give {write}.")
    return value


def flag(value: Any, name: str, *, error: type[MMLensError] = ArgumentError) -> bool:
    """True or False, and no value that is merely truthy or falsy."""
    if not _flag(value):
        raise error(f"{name}={shown(value)}: write True or False.")
    return bool(value)


def instance(
    value: Any, name: str, kind: type[T], write: str, *, error: type[MMLensError] = ArgumentError
) -> T:
    """An object of a class; `write` says what to give instead: "what mmlens.load returns"."""
    if not isinstance(value, kind):
        raise error(f"{name}={shown(value)} is no {kind.__name__}: give {write}.")
    return value


def path(value: Any, name: str, *, error: type[MMLensError] = ArgumentError) -> Path:
    """A file or folder: its name as a text, or a Path."""
    if not isinstance(value, str | PathLike) or "\0" in str(value):
        raise error(f"{name}={shown(value)}: write the name of a file or folder.")
    return Path(value)


_SEVERAL = {"layers": "layer", "heads": "head", "experts": "expert", "positions": "pos",
            "position": "pos", "queries": "query", "keys": "key", "dims": "dim"}  # fmt: skip
"""What an axis could be called where it takes several labels, and its only name."""
_PLAIN = {"bool": "True or False", "str": "a text", "int": "a number", "float": "a number"}
"""Annotations of arguments that hold one value, and what to write for them."""


def check_call(called: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Refuse options that a function does not have, and tables or arrays as texts or numbers.

    Raises:
        ArgumentError: there is no option of this name (the error has the real one), or a table, an
            array or a tensor stands where one number, one text or True or False is expected.
    """
    known, any_name, plain = _options(called)
    for name, value in (*zip(known, args, strict=False), *options.items()):
        if name in plain and getattr(value, "ndim", 0) > 0:
            raise ArgumentError(f"{name}={shown(value)}: write {plain[name]}.")
    for name in options.keys() - set(known):
        real = _SEVERAL.get(name, "")
        if real and (any_name or real in known):
            raise ArgumentError(
                f"{called.__name__} has no {name}=: write {real}=, which takes one label or several"
                f" ({real}=3, {real}=[0, 1])."
            )
        if not any_name:
            raise ArgumentError(f"{called.__name__} has no {name}=: {nearest(name, known)}")


def spelled(called: Called) -> Called:
    """A function whose calls are checked by `check_call`."""

    @wraps(called)
    def asked(*args: Any, **options: Any) -> Any:
        check_call(called, args, options)
        return called(*args, **options)

    return asked  # type: ignore[return-value]


@cache
def _options(called: Callable[..., Any]) -> tuple[tuple[str, ...], bool, dict[str, str]]:
    """The names of a function's parameters in order, whether it takes any other, and what to write
    for those that are one number, one text or a flag.
    """
    there = inspect.signature(called).parameters.values()
    rest = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = tuple(one.name for one in there if one.kind not in rest)
    plain = {}
    for one in there:
        kinds = set(str(one.annotation).replace(" ", "").split("|")) - {"None"}
        if kinds <= _PLAIN.keys():
            plain[one.name] = " or ".join(dict.fromkeys(_PLAIN[kind] for kind in sorted(kinds)))
    return named, any(one.kind is inspect.Parameter.VAR_KEYWORD for one in there), plain


def shown(value: Any) -> str:
    """A value as error messages show it, in one short line."""
    return " ".join(short(value).split())[:80]


def _flag(value: Any) -> bool:
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))
