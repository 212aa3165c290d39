"""Arithmetic and comparison of Scores, value by value, with what was computed kept in `about`.

    scores - other             # of the same axes, labels and quantity
    (scores > 0).mean()        # the share of positive scores
    scores / scores.abs().sum()
    (scores ** 2).sum()
    if float(a.sum()) > float(b.sum()): ...

Results of different axes are never stretched onto each other, but for one that has a single value
left: labels decide what belongs together, and a place that only one of two has is an error.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mmlens.values.arguments import instance, number, several, shown
from mmlens.values.errors import AddressError, ArgumentError

ALIKE = ("+", "-", "<", "<=", ">", ">=", "==", "!=")
"""What is asked of two results of one quantity and one target only."""
_UFUNCS = {
    "add": ("__add__", "__radd__"),
    "subtract": ("__sub__", "__rsub__"),
    "multiply": ("__mul__", "__rmul__"),
    "divide": ("__truediv__", "__rtruediv__"),
    "less": ("__lt__", "__gt__"),
    "less_equal": ("__le__", "__ge__"),
    "greater": ("__gt__", "__lt__"),
    "greater_equal": ("__ge__", "__le__"),
    "equal": ("__eq__", "__eq__"),
    "not_equal": ("__ne__", "__ne__"),
}
"""NumPy's operators: with Scores on their left, and on their right."""
_REDUCED = {"logical_or": "any", "logical_and": "all", "add": "sum", "multiply": "prod"}
"""What NumPy calls the reductions of its operators."""
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

    def __pow__(self: S, other: Any) -> S:
        """Every value to a power, a number."""
        return _computed(self, "**", other, operator.pow)

    def __neg__(self: S) -> S:
        """Every value with the other sign."""
        return alone(self, "negated", operator.neg)

    def __pos__(self: S) -> S:
        """As they are."""
        return self

    def __abs__(self: S) -> S:
        """The magnitude of every value."""
        return self.abs()

    def abs(self: S) -> S:
        """The magnitude of every value."""
        return alone(self, "abs", operator.abs)

    def __radd__(self: S, other: Any) -> S:
        """As the sum the other way round."""
        return self + other

    def __rsub__(self: S, other: Any) -> S:
        """A number less every value."""
        return -self + other

    def __rmul__(self: S, other: Any) -> S:
        """As the product the other way round."""
        return self * other

    def __rtruediv__(self: S, other: Any) -> S:
        """A number divided by every value; by 0 it is inf or nan."""
        return alone(self, "inverted", lambda values: 1.0 / values) * other

    def __eq__(self, other: object) -> Any:
        """1 where two values are equal, else 0; beside what has no values (None, a text), False.

        Raises:
            AddressError: an array or a tensor, which has no labels.
        """
        if not isinstance(other, Arithmetic) and not _has_values(other):
            return NotImplemented
        return _compared(self, "==", other, operator.eq)

    def __ne__(self, other: object) -> Any:
        """1 where two values differ, else 0; beside what has no values (None, a text), True.

        Raises:
            AddressError: an array or a tensor, which has no labels.
        """
        if not isinstance(other, Arithmetic) and not _has_values(other):
            return NotImplemented
        return _compared(self, "!=", other, operator.ne)

    __hash__ = object.__hash__

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

    def joined(self: S, sign: str, other: Any, do: Callable[[Any, Any], Any]) -> S:
        """What `do` makes of both values at each place; `sign` is told in `about`."""
        return _computed(self, sign, other, do)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions: operators as they stand here, others of one argument value by value.

        Raises:
            ArgumentError: a function that keeps no labels.
        """
        names = _UFUNCS.get(ufunc.__name__)
        if method == "__call__" and not options and names is not None and len(inputs) == 2:
            first, second = inputs
            mine = isinstance(first, Arithmetic)
            return getattr(first, names[0])(second) if mine else getattr(second, names[1])(first)
        if method != "__call__" or options or ufunc.nin != 1 or ufunc.nout != 1:
            of_all = _REDUCED.get(ufunc.__name__) if method == "reduce" else None
            raise ArgumentError(
                f"numpy.{of_all or ufunc.__name__} keeps no labels of Scores: write scores.numpy()"
                " in it."
            )
        return alone(self, ufunc.__name__, lambda values: _by_numpy(ufunc, values))

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
        if getattr(other, "ndim", 0):
            raise AddressError(
                f"{shown(other)} beside {sign} has no labels: write a finite number, Scores, or"
                " scores.values for what has none."
            )
        by = number(other, f"Scores {sign} other", error=AddressError)
        told = f"{sign} {by:g}"
    before = mine.about.get("computed")
    return mine.with_values(
        do(mine.values, by), computed=told if before is None else f"{before} {told}"
    )


def alone(mine: Any, told: str, do: Callable[[Any], Any]) -> Any:
    """Values computed from these alone."""
    before = mine.about.get("computed")
    return mine.with_values(
        do(mine.values), computed=told if before is None else f"{before} {told}"
    )


def _by_numpy(ufunc: Any, values: Any) -> Any:
    import torch

    return torch.as_tensor(ufunc(values.detach().double().cpu().numpy())).to(values)


def is_number(value: Any) -> bool:
    """Whether this is one number, also of NumPy or torch."""
    return isinstance(value, (int, float)) or getattr(value, "ndim", None) == 0


def _has_values(value: Any) -> bool:
    return is_number(value) or hasattr(value, "ndim")


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
