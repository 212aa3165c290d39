"""How the fields of a label are given: numbers of any package, what is printed, and how it prints.

put(label, layer=np.int64(3))            # a plain 3; 3.0, True and None are refused
printed(Neuron, "L14.2019", None)        # its fields, where the text of one is given
beside(told, tower=("vision", "lm"))     # of a text, and of what is given beside it
"""

from __future__ import annotations

import operator
import re
from dataclasses import fields
from typing import Any

from mmlens.values.errors import ArgumentError

_EXAMPLES = {"Neuron": "14, 2019", "Head": "3, 5", "Patch": "5, 2", "Token": "' dog', 3"}


def put(label: Any, **numbers: Any) -> None:
    """Set the numbers of a frozen label, plain ones also where NumPy or torch has given them.

    Raises:
        ArgumentError: one is no whole number.
    """
    for name, value in numbers.items():
        if type(value) is not int:
            value = _whole(label, name, value)
        object.__setattr__(label, name, value)


def _whole(label: Any, name: str, value: Any) -> int:
    try:
        if type(value) is not bool:
            return operator.index(value)
    except TypeError:
        pass  # told below
    kind = type(label).__name__
    raise ArgumentError(
        f"{kind}({name}={value!r}): write a whole number, as in {kind}({_EXAMPLES.get(kind, '3')})."
    )


def named(kind: Any, tower: Any, pattern: str) -> str:
    """The name of a tower.

    Raises:
        ArgumentError: it is none, as the third number of an address would be.
    """
    if tower != "lm" and not (isinstance(tower, str) and re.fullmatch(pattern, tower)):
        name = kind.__name__
        raise ArgumentError(
            f"{name}(tower={tower!r}): write the name of a tower, as in"
            f" {name}({_EXAMPLES[name]}, 'vision')."
        )
    return tower


def beside(told: tuple[Any, ...], **given: tuple[Any, Any]) -> tuple[Any, ...]:
    """What a printed unit says of fields that may be given beside it: name -> (value, default).

    Raises:
        ArgumentError: the text says something else.
    """
    found = []
    for said, (name, (value, default)) in zip(told[2:], given.items(), strict=True):
        if value != default and said not in (default, value):
            raise ArgumentError(
                f"{name}={value!r} is given beside a unit that is printed with {said!r}: leave"
                f" {name}= out."
            )
        found.append(value if said == default else said)
    return tuple(found)


def printed(kind: Any, text: Any, other: Any) -> tuple[Any, ...]:
    """The fields of a Neuron or Head that is given as it prints.

    Raises:
        ArgumentError: it is no text, or there is a second number beside it.
    """
    if not isinstance(text, str) or other is not None:
        given = ", ".join(repr(one) for one in (text, other) if one is not None)
        name = kind.__name__
        example = kind(*map(int, _EXAMPLES[name].split(", ")))
        raise ArgumentError(
            f"{name}({given}) names no {name.lower()}: write {example!r}, or what it prints,"
            f" {str(example)!r}."
        )
    found = kind.parse(text)
    return tuple(getattr(found, one.name) for one in fields(found))


def as_call(label: Any, *given: Any, **named: Any) -> str:
    """A label as it is written in Python, without what is left out there."""
    rest = [f"{name}={value!r}" for name, value in named.items() if value]
    rest += ["expert=0"] if named.get("expert") == 0 else []
    return f"{type(label).__name__}({', '.join([*map(repr, given), *rest])})"
