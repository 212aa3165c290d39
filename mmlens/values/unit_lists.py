"""Neurons and Heads as they are given: one or several, in a table, or as they print.

    units_in(best, "neurons")                  # a table: its column neuron (or head)
    units_in(best.iloc[0], "neurons")          # a row of it
    units_in(best.neuron, "neurons")           # a Series, an array, a list, a tuple, a set
    units_in("L14.2019", "neurons")            # as it prints; also in a list
    units_in(Neuron(14, 2019), "neurons")      # one is a list of one

Everything that takes a Neuron or a Head reads it here, so all of these are taken everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Sized
from typing import Any

from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError, MMLensError
from mmlens.values.labels import Head, Neuron

Unit = Neuron | Head
_COLUMNS = {"neuron": Neuron, "head": Head}
_PRINTED = re.compile(r"\s*([a-z]\w*\.(sae\.)?)?L\d+(H\d+|\.(e\d+\.)?u?\d+)\s*")


def units_in(
    value: Any,
    name: str,
    kind: type | tuple[type, ...] = (Neuron, Head),
    *,
    least: int = 0,
    error: type[MMLensError] = AddressError,
) -> list[Any]:
    """The Neurons (or Heads) of any such argument, in order, repeats included.

    Args:
        kind: what is taken: Neuron, Head, or both.
        least: how many there have to be.

    Raises:
        AddressError: it is something else, holds something else, or too few.
    """
    members = _members(value, name, error)
    found = [as_unit(one) for one in members]
    for one, given in zip(found, members, strict=True):
        if not isinstance(one, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            named = " or ".join(f"{each.__name__}s" for each in kinds)
            example = "Head(3, 5)" if kinds == (Head,) else "Neuron(14, 2019)"
            raise error(
                f"{name}={shown(value)} is no list of {named}: {shown(given)} is none; write"
                f" [{example}, ...], what they print as, or a table that has them."
            )
    if len(found) < least:
        raise error(f"{name}={shown(value)} names {len(found)} units: give at least {least}.")
    return found


def one_unit(value: Any, name: str, kind: type | tuple[type, ...] = Neuron) -> Any:
    """One Neuron (or Head), also as it prints, or alone in a list or table.

    Raises:
        AddressError: it is something else, or several.
    """
    found = units_in(value, name, kind)
    if len(found) != 1:
        example = "Neuron(14, 2019)" if kind is Neuron else "Head(3, 5)"
        raise AddressError(
            f"{name}={shown(value)} names {len(found)} units: give one at a time, as in"
            f" {name}={example}."
        )
    return found[0]


def as_unit(value: Any) -> Any:
    """A unit that is given as it prints; anything else as it is."""
    if isinstance(value, str) and _PRINTED.fullmatch(value):
        return (Head if "H" in value else Neuron).parse(value)
    return value


def has_units(value: Any) -> bool:
    """Whether this is a Neuron or Head, the text of one, or several of them, and nothing else."""
    if isinstance(value, (Neuron, Head)):
        return True
    if isinstance(value, str):
        return _PRINTED.fullmatch(value) is not None
    if hasattr(value, "columns"):
        return any(name in value.columns for name in _COLUMNS)
    if isinstance(value, (dict, bytes, type)) or not isinstance(value, Iterable):
        return False
    if _row_unit(value) is not None:
        return True
    if not isinstance(value, Sized) or getattr(value, "ndim", 1) != 1:
        return False
    members = list(value)
    return bool(members) and all(
        isinstance(one, str | Neuron | Head) and has_units(one) for one in members
    )


def _row_unit(value: Any) -> Any:
    """The Neuron (or Head) in a row of a table, `best.iloc[0]`; None of anything else."""
    names: Any = getattr(value, "index", None)
    if not hasattr(value, "to_numpy") or not hasattr(names, "tolist"):
        return None
    found = [name for name in _COLUMNS if name in names.tolist()]
    return value[found[0]] if found else None


def plain_address(address: Sequence[Any]) -> tuple[Any, ...]:
    """Positional labels, where several units are one list and none is a text.

    Raises:
        AddressError: an empty list, or a table without units.
    """
    return tuple(_plain_part(part) for part in address)


def _plain_part(part: Any) -> Any:
    if isinstance(part, str):
        return as_unit(part)
    holds = hasattr(part, "columns") or isinstance(part, (list, tuple, set, frozenset))
    holds = holds or (hasattr(part, "to_numpy") or type(part).__module__ == "numpy")
    if holds and not has_units(part):
        raise AddressError(
            f"{shown(part)} is no list of Neurons or Heads: name the axis of other labels, as in"
            " pos=[...]."
        )
    return units_in(part, "address") if holds else part


def _members(value: Any, name: str, error: type[MMLensError]) -> list[Any]:
    if isinstance(value, (Neuron, Head, str)):
        return [value]
    if hasattr(value, "columns"):
        for column in _COLUMNS:
            if column in value.columns:
                return list(value[column])
        raise error(
            f"{name}: this table has no column 'neuron' but {list(value.columns)}: give what"
            " top_neurons(...) returned, or a list of Neurons."
        )
    if (alone := _row_unit(value)) is not None:
        return [alone]
    if isinstance(value, (dict, bytes, type)) or not isinstance(value, Iterable):
        raise error(f"{name}={shown(value)}: write a list of Neurons, [Neuron(14, 2019), ...].")
    return [value] if getattr(value, "ndim", 1) == 0 else list(value)
