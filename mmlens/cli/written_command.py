"""The command line of a study as it stands in its report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

HERE = ("out", "results", "anew", "as_json")
"""Options that say where a study lies or how it is told, and nothing of what it asks."""


def written(name: str, command: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The command line of a study: what differs from the defaults, without this machine's places.

    Args:
        name: the study's.
        command: the function whose parameters are its options.
        given: their values.
    """
    words = ["mmlens", "reproduce", name]
    for name, option in signature(command).parameters.items():
        value = given[name]
        if name in HERE or value == option.default:
            continue
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words += [flag] if one is True else [flag, _without_place(str(one))]
    return shlex.join(words)


def _without_place(text: str) -> str:
    """The last part of a path, behind the kind of data that it holds."""
    kind, colon, rest = text.rpartition(":")
    return kind + colon + (Path(rest).name if Path(rest).is_absolute() else rest)
