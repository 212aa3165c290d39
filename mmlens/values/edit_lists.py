"""Several Edits as callers give them: one by one, or in lists, which some functions return."""

from __future__ import annotations

from typing import Any


def one_by_one(given: Any) -> list[Any]:
    """The members of lists, and of lists in lists, one after the other; one thing as itself."""
    if not isinstance(given, (list, tuple)):
        return [given]
    return [one for part in given for one in one_by_one(part)]
