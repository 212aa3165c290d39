"""Remove the machine's folders from texts that are saved or shared; file names are kept.

    placeless("'/home/ada/my photos/dog.jpg' is not a picture")   ->   "'dog.jpg' is not a picture"

Errors about unreadable files are stored in saved bridges, records and pages.
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
    """Texts, and lists and dicts of them, with every absolute path reduced to its last part."""
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
    """The last part of a path; a root is kept."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path
