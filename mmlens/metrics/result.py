"""What a metric returns, and the questions that every metric asks of its texts first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmlens.values.arguments import shown
from mmlens.values.errors import MMLensError


class MetricError(MMLensError, ValueError):
    """The texts given to a metric are none, do not pair up, or are not texts."""


@dataclass(frozen=True)
class MetricResult:
    """A number, what it is made of, and how.

    `corpus` is not always the mean of `items`: BLEU and CHAIR-i add up counts before they divide.
    """

    name: str
    corpus: float
    items: tuple[float, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.corpus

    def __str__(self) -> str:
        return f"{self.name} {self.corpus:.4f} over {len(self.items)}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def check_pairs(
    name: str, candidates: Sequence[Any], references: Sequence[Any], what: str = "references"
) -> None:
    """Raise MetricError unless there are as many candidates, all texts, as references."""
    for kind, given in (("candidates", candidates), (what, references)):
        if isinstance(given, str):
            raise MetricError(f"{name}: the {kind} are one text; write a list, [{given[:30]!r}].")
        if not (isinstance(given, Iterable) and hasattr(given, "__len__")):
            raise MetricError(f"{name}: the {kind} are {shown(given)}; write a list, [...].")
    if len(candidates) == 0:
        raise MetricError(f"{name}: there are no candidates, and of nothing there is no mean.")
    if len(candidates) != len(references):
        raise MetricError(
            f"{name}: {len(candidates)} candidates and {len(references)} {what}; item i of one is"
            " judged by item i of the other, so give as many."
        )
    for i, text in enumerate(candidates):
        if not isinstance(text, str):
            raise MetricError(f"{name}: candidate {i} is {type(text).__name__}, not a text.")


def check_list(name: str, item: int, what: str, given: Any) -> None:
    """Raise MetricError unless what belongs to an item is a list or another collection."""
    if isinstance(given, str) or not (isinstance(given, Iterable) and hasattr(given, "__len__")):
        raise MetricError(f"{name}: the {what} of item {item} are {shown(given)}; write a list.")


def check_references(
    name: str, candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> None:
    """As `check_pairs`, and each candidate has at least one reference text."""
    check_pairs(name, candidates, references)
    for i, texts in enumerate(references):
        if isinstance(texts, str):
            raise MetricError(
                f"{name}: the references of item {i} are one text; write a list, [{texts[:30]!r}]."
            )
        check_list(name, i, "references", texts)
        if len(texts) == 0:
            raise MetricError(f"{name}: item {i} has no reference; leave the item out.")
        if not all(isinstance(text, str) for text in texts):
            raise MetricError(f"{name}: the references of item {i} are not all texts.")
