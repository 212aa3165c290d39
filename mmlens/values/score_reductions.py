"""Scores with fewer axes: sums, means and extremes over axes that are named.

    scores.sum("unit")                # over one axis
    scores.mean("layer", "pos")       # over several
    scores.std("pos")                 # the sample standard deviation (n - 1)
    float(scores.max())               # over all
    scores.argmax()                   # where the largest is, as sel(**place) takes it

Axes are given by name and by nothing else, because their order is no part of the question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError, ArgumentError

R = TypeVar("R", bound="Reductions")
_TENSORS = {"max": "amax", "min": "amin"}


class Reductions:
    """What is left of Scores over some axes, or over all when none is named."""

    values: Any
    axes: tuple[str, ...]
    about: Mapping[str, Any]
    labels: Mapping[str, Any]

    def of(self, axis: str) -> Sequence[Any]:
        """The labels of one axis."""
        raise NotImplementedError

    def sum(self: R, *axes: str | Sequence[str], **given: Any) -> R:
        """The sum over the named axes (over all when none is named)."""
        return _reduced(self, "sum", axes, given)

    def mean(self: R, *axes: str | Sequence[str], **given: Any) -> R:
        """The mean over the named axes (over all when none is named)."""
        return _reduced(self, "mean", axes, given)

    def std(self: R, *axes: str | Sequence[str], **given: Any) -> R:
        """The sample standard deviation (n - 1) over the named axes; NaN of one value."""
        return _reduced(self, "std", axes, given)

    def max(self: R, *axes: str | Sequence[str], **given: Any) -> R:
        """The largest value over the named axes (over all when none is named)."""
        return _reduced(self, "max", axes, given)

    def min(self: R, *axes: str | Sequence[str], **given: Any) -> R:
        """The smallest value over the named axes (over all when none is named)."""
        return _reduced(self, "min", axes, given)

    def argmax(self, *axes: Any, **given: Any) -> dict[str, Any]:
        """The place of the largest value of all: axis to label, as `sel(**place)` takes it.

        Raises:
            ArgumentError: an axis; places along one are numbers, which `values` has.
        """
        _of_all("argmax", axes, given)
        return _place(self, self.values)

    def argmin(self, *axes: Any, **given: Any) -> dict[str, Any]:
        """The place of the smallest value of all: axis to label, as `sel(**place)` takes it.

        Raises:
            ArgumentError: an axis; places along one are numbers, which `values` has.
        """
        _of_all("argmin", axes, given)
        return _place(self, -self.values)


def _of_all(how: str, axes: Sequence[Any], options: Mapping[str, Any]) -> None:
    if axes or options:  # NumPy's own function reads a TypeError as "ask the array"
        raise ArgumentError(
            f"{how} is one place among all values and takes no axis: write scores.values.{how}(dim)"
            f" for the numbers along one, or one.{how}() for one in scores."
        )


def _reduced(scores: Any, how: str, given: Sequence[Any], options: Mapping[str, Any]) -> Any:
    for name, value in options.items():
        if how == "std" and name in ("ddof", "correction", "unbiased"):
            raise ArgumentError(
                "std divides by n - 1 and has no other way: write scores.numpy().std() to divide by"
                " n."
            )
        if value is not None:  # NumPy's functions give axis=None, dtype=None, out=None
            raise ArgumentError(
                f"{how} has no {name}=: name the axes alone, as in scores.{how}"
                f"({scores.axes[0] if scores.axes else 'layer'!r})."
            )
    axes = [name for one in given for name in ([one] if _is_name(one) else one)]
    dims = [_dim(scores, axis) for axis in dict.fromkeys(axes or scores.axes)]
    rest = tuple(a for i, a in enumerate(scores.axes) if i not in dims)
    values = scores.values
    if dims or how != "std":
        values = getattr(values, _TENSORS.get(how, how))(dim=dims)
    else:
        values = values * float("nan")  # of one value
    return type(scores)(values, rest, {a: scores.labels.get(a) for a in rest}, scores.about)


def _is_name(one: Any) -> bool:
    return not isinstance(one, (list, tuple, set, frozenset))


def _dim(scores: Any, axis: Any) -> int:
    if not isinstance(axis, str):
        raise AddressError(
            f"{shown(axis)} is no name of an axis: there is {', '.join(map(repr, scores.axes))}."
        )
    return scores._dim(axis)


def _place(scores: Any, values: Any) -> dict[str, Any]:
    import torch

    if not values.numel():
        raise AddressError(f"{scores!r} holds no value, and so none that is the largest.")
    places = values.new_tensor(scores.shape).long()  # of no axes where one value is left
    if scores.axes:
        places = torch.stack(torch.unravel_index(values.argmax(), scores.shape))
    return {a: scores.of(a)[i] for a, i in zip(scores.axes, places.tolist(), strict=True)}
