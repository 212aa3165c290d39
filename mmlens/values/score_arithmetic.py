"""Arithmetic and comparison of Scores, value by value, with what was computed kept in `about`.

    scores - other             # of the same axes, labels and quantity
    (scores > 0).mean()        # the share of positive scores
    scores / scores.abs().sum()

Results of different axes are never stretched onto each other, but for one that has a single value
left: labels decide what belongs together, and a place that only one of two has is an error.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mmlens.values.arguments import instance, number, several
from mmlens.values.errors import AddressError

ALIKE = ("+", "-", "<", "<=", ">", ">=")
"""What is asked of two results of one quantity and one target only."""


S = TypeVar("S", bound="Arithmetic")


class Arithmetic:
    """The operators of Scores, with another result or a number; the first's labels stay."""

    values: Any
    axes: tuple[str, ...]
    about: Mapping[str, Any]
    labels: Mapping[str, Any]

    def of(self, axis: str) -> Sequence[Any]:
        """The labels of one axis."""
        raise NotImplementedError

    def with_values(self: S, values: Any, **told: Any) -> S:
        """Other values at the same places."""
        raise NotImplementedError

    def __add__(self: S, other: Any) -> S:
        """The sum with a result of the same axes, labels and quantity, or with a number.

        Raises:
            AddressError: other axes, other labels, another quantity or target, or no number.
        """
        return _computed(self, "+", other, operator.add)

    def __sub__(self: S, other: Any) -> S:
        """The difference to a result of the same axes, labels and quantity, or to a number.

        Raises:
            AddressError: other axes, other labels, another quantity or target, or no number.
        """
        return _computed(self, "-", other, operator.sub)

    def __mul__(self: S, other: Any) -> S:
        """The product with a result of the same axes and labels, or with a number.

        Raises:
            AddressError: other axes, other labels, or no number.
        """
        return _computed(self, "*", other, operator.mul)

    def __truediv__(self: S, other: Any) -> S:
        """The ratio to a result of the same axes and labels, or to a number; by 0 it is inf or nan.

        Raises:
            AddressError: other axes, other labels, or no number.
        """
        return _computed(self, "/", other, operator.truediv)

    def __neg__(self: S) -> S:
        """Every value with the other sign."""
        return self.with_values(-self.values)

    def __radd__(self: S, other: Any) -> S:
        """As the sum the other way round."""
        return self + other

    def __rsub__(self: S, other: Any) -> S:
        """A number less every value."""
        return -self + other

    def __rmul__(self: S, other: Any) -> S:
        """As the product the other way round."""
        return self * other

    def __lt__(self: S, other: Any) -> S:
        """1 where a value is smaller, else 0."""
        return _compared(self, "<", other, operator.lt)

    def __le__(self: S, other: Any) -> S:
        """1 where a value is not larger, else 0."""
        return _compared(self, "<=", other, operator.le)

    def __gt__(self: S, other: Any) -> S:
        """1 where a value is larger, else 0."""
        return _compared(self, ">", other, operator.gt)

    def __ge__(self: S, other: Any) -> S:
        """1 where a value is not smaller, else 0."""
        return _compared(self, ">=", other, operator.ge)

    @classmethod
    def concat(cls: type[S], parts: Sequence[Any], axis: str, labels: Sequence[Any] = ()) -> S:
        """Results side by side, along an axis that all have or along a new first one.

        Args:
            parts: results that have the same places on every other axis; `about` is the first's.
            axis: an axis of all, or a new one.
            labels: of a new axis, one per result (0, 1, 2, ... when left out).

        Raises:
            AddressError: no result, other places, or not one label per result.
        """
        import torch

        parts = [instance(part, "parts", cls, "Scores") for part in several(parts, "parts")]
        made: Any = cls
        first = parts[0]
        new = axis not in first.axes
        for other in parts[1:]:
            _belong_together(first, "+", other, along=axis)
        if new:
            if labels and len(labels) != len(parts):
                raise AddressError(f"{len(parts)} results have {len(labels)} labels.")
            values = torch.stack([part.values for part in parts])
            named = {axis: tuple(labels) or None, **first.labels}
            return made(values, (axis, *first.axes), named, first.about)
        known = tuple(label for part in parts for label in part.of(axis))
        values = torch.cat([part.values for part in parts], first.axes.index(axis))
        return made(values, first.axes, {**first.labels, axis: known}, first.about)


def _computed(mine: Any, sign: str, other: Any, do: Callable[[Any, Any], Any]) -> Any:
    if isinstance(other, Arithmetic):
        by, told = other.values, f"{sign} {other!r}"
        if other.axes:
            _belong_together(mine, sign, other)
    else:
        by = number(other, f"What stands after {sign} Scores", error=AddressError)
        told = f"{sign} {by:g}"
    before = mine.about.get("computed")
    return mine.with_values(
        do(mine.values, by), computed=told if before is None else f"{before} {told}"
    )


def _compared(mine: Any, sign: str, other: Any, do: Callable[[Any, Any], Any]) -> Any:
    return _computed(mine, sign, other, lambda a, b: do(a, b).float())


def _belong_together(mine: Any, sign: str, other: Any, along: str = "") -> None:
    """Refuse two results whose values do not stand for the same places, or not for one quantity.

    Args:
        along: an axis whose labels may differ.
    """
    for what in ("quantity", "target") if sign in ALIKE else ():
        ours, theirs = mine.about.get(what), other.about.get(what)
        if ours is not None and theirs is not None and ours != theirs:
            raise AddressError(
                f"{mine!r} has {what}={ours!r} and {other!r} has {theirs!r}: what is measured"
                f" differently stands on no two sides of {sign}."
            )
    held = [axis for axis in mine.axes if axis != along]
    if mine.axes != other.axes or any(len(mine.of(a)) != len(other.of(a)) for a in held):
        raise AddressError(f"{mine!r} and {other!r} do not have the same axes.")
    for axis in held:
        for ours, theirs in zip(mine.of(axis), other.of(axis), strict=True):
            if ours != theirs:
                raise AddressError(
                    f"{mine!r} and {other!r} do not have the same labels: on axis {axis!r}"
                    f" {ours!r} stands where the other has {theirs!r}."
                )
