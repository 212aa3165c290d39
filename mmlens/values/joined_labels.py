"""Labels of positions of several prompts that are read side by side: one per position for all.

Of tables that stand below each other: what all of them tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.values.errors import PromptError
from mmlens.values.labels import Padding, Token
from mmlens.values.prompt import same_layout

EACH_PAIRS = " of the word of each pair"
"""The end of the name of a metric that was measured for other words in other pairs."""


def joined(rows: tuple[tuple[Any, ...], ...]) -> tuple[Any, ...]:
    """One label per position; where prompts have different words, all of them: " dog | cat".

    Raises:
        PromptError: layouts differ.
    """
    if not same_layout(rows):
        lengths = sorted({sum(not isinstance(x, Padding) for x in row) for row in rows})
        raise PromptError(
            f"These prompts have {' and '.join(map(str, lengths))} positions, or their pictures at"
            " different places: ask for one at a time, or give prompts of one layout."
        )
    return tuple(map(_named, zip(*rows, strict=True)))


def joined_attrs(tables: Sequence[Any]) -> dict[str, Any]:
    """The `attrs` of tables below each other: mappings joined, provenance with all that differs."""
    first = dict(tables[0].attrs)
    for name, told in first.items():
        every = [dict(table.attrs.get(name) or {}) for table in tables]
        if isinstance(told, Mapping) and name == "about":
            first[name] = {key: of_all([one.get(key) for one in every]) for key in told}
        elif isinstance(told, Mapping):
            first[name] = {key: value for one in every for key, value in one.items()}
    return first


def of_all(told: list[Any]) -> Any:
    """What is told once where all tell the same, else of each."""
    return told[0] if all(str(one) == str(told[0]) for one in told) else told


def _named(labels: tuple[Any, ...]) -> Any:
    texts = list(dict.fromkeys(str(label) for label in labels))
    if len(texts) == 1:
        return labels[0]
    return Token(" |".join(texts[:3]) + (" | ..." if len(texts) > 3 else ""), labels[0].at)
