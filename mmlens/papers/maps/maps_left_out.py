"""Methods that a model, or a picture, cannot take: which measures they lack, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

Why = Mapping[str, Sequence[tuple[frozenset[str], str]]]
"""By method, which measures it lacks, and a sentence: of how many pictures, for what reason."""


def left_out(table: pd.DataFrame) -> Why:
    """What is left out of the table of `judged_maps`."""
    rows: Any = table[(table["skipped"] == "") & (table["why"] != "")]
    found: dict[str, list[tuple[frozenset[str], str]]] = {}
    groups: Any = rows.groupby(["method", "why"], sort=False)
    for (name, why), some in groups:
        pictures, measures = some["sample"].nunique(), frozenset(map(str, some["metric"]))
        what = "" if "cost" in measures else f" ({', '.join(sorted(measures))})"
        s = "s" * (pictures != 1)
        told = f"Of {pictures} picture{s}{what}: {str(why).rstrip('.')}."
        found.setdefault(str(name), []).append((measures, told))
    return found


def told_left_out(names: Iterable[str], why: Why, metrics: Iterable[str]) -> list[str]:
    """A line a reason, with the methods that lack one of these measures for it."""
    asked = set(metrics)
    named: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        for measures, told in why.get(name, ()):
            if measures & asked:
                named.setdefault(told, []).append(name)
    return [f"Left out: {'; '.join(some)}. {told}" for told, some in named.items()]
