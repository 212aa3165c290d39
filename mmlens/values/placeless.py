"""What is kept and passed on names files, but no folder of the machine that it was made on.

    placeless("'/home/ada/my photos/dog.jpg' is not a picture")   ->   "'dog.jpg' is not a picture"

Sentences about files that could not be read travel in saved bridges, records and pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_START = r"(?:~[\w.-]*[\\/]|/|[A-Za-z]:[\\/]|\\\\)"
_QUOTED = re.compile(rf"(?P<quote>['\"`]){_START}[^'\"`\n]*(?P=quote)")
_BARE = re.compile(
    r"(?<![\w./:~\\-])(?:~[\w.-]*|[A-Za-z]:)?(?:[\\/][\w.+@%=-]+){2,}[\\/]?|(?<![\w/])~/[\w.+@%=-]+"
)


def placeless(value: Any) -> Any:
    """Texts, and lists and dicts of them, with every absolute path cut down to its last piece."""
    if isinstance(value, str):
        return _BARE.sub(lambda m: _last(m[0]), _QUOTED.sub(_unquoted, value))
    if isinstance(value, Mapping):
        return {placeless(key): placeless(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(placeless(one) for one in value)
    return value


def _unquoted(match: re.Match[str]) -> str:
    quote = match["quote"]
    return f"{quote}{_last(match[0][1:-1])}{quote}"


def _last(path: str) -> str:
    """The last piece of a path; what is nothing but a root stays."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path
