"""What Python, NumPy and torch ask of Scores: one number, its text, what is in them, their tensor.

    float(total), int(total), bool(total), f"{total:.2f}"   # where one value is left
    round(scores, 2)                                         # value by value, as `abs` is
    (scores > 0) & ~(other > 1)                              # of comparisons, which are 0 or 1
    0.5 in scores                                            # whether a value is this number
    torch.as_tensor(scores), np.asarray(scores)              # the values, without their labels

What would give an answer without labels, or one that nobody meant, is refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mmlens.values.arguments import count, shown
from mmlens.values.errors import AddressError, ArgumentError
from mmlens.values.score_arithmetic import Arithmetic, alone, is_number

P = TypeVar("P", bound="Protocols")


class Protocols(Arithmetic):
    """One number where one value is left, truth of comparisons, tensors of torch."""

    # -- one number ---------------------------------------------------------------------------

    def item(self) -> float:
        """The number, when one value is left."""
        if self.values.numel() != 1:
            raise AddressError(_many(self))
        return float(self.values.item())

    def __float__(self) -> float:
        """The number, when one value is left.

        Raises:
            ArgumentError: several values.
        """
        if self.values.numel() != 1:
            raise ArgumentError(_many(self))
        return self.item()

    def __int__(self) -> int:
        """The number without its fraction, when one value is left."""
        return int(float(self))

    def __bool__(self) -> bool:
        """Whether the number is other than 0, where one is left.

        Raises:
            ArgumentError: several values, of which some may be 0 and others not.
        """
        if self.values.numel() != 1:
            raise ArgumentError(
                f"{self!r} holds {self.values.numel()} values, which are not true or false as one:"
                " write bool((scores > 0).values.any()), or .all(); scores.max() is the largest,"
                " to_frame(5) has the five largest, and is None asks whether there are any."
            )
        return bool(self.values.item())

    def __format__(self, how: str) -> str:
        """As `format(float(scores), how)` where one value is left, and as `str` without `how`."""
        return format(float(self), how) if how else str(self)

    def __round__(self: P, digits: int | None = None) -> P:
        """Every value, rounded to so many digits after the point (0 when left out)."""
        import torch

        places = 0 if digits is None else count(digits, "digits", least=-300)
        return alone(self, f"rounded to {places}", lambda v: torch.round(v, decimals=places))

    # -- truth --------------------------------------------------------------------------------

    def __and__(self: P, other: Any) -> P:
        """1 where both comparisons hold, else 0."""
        return _both(self, "&", other, lambda a, b: a * b)

    def __or__(self: P, other: Any) -> P:
        """1 where one of two comparisons holds, else 0."""
        return _both(self, "|", other, lambda a, b: a + b - a * b)

    __rand__ = __and__
    __ror__ = __or__

    def __invert__(self: P) -> P:
        """1 where a comparison does not hold, else 0."""
        _check_truth(self, "~")
        return alone(self, "not", lambda values: 1 - values)

    def __contains__(self, value: Any) -> bool:
        """Whether one of the values is this number.

        Raises:
            ArgumentError: it is a label, or something else that is no number.
        """
        if isinstance(value, bool) or not (isinstance(value, Arithmetic) or is_number(value)):
            raise ArgumentError(
                f"{shown(value)} is no value of Scores: write"
                f" {shown(value)} in scores.of(axis) for a label, or in scores.axes for an axis."
            )
        asked: Any = value
        return bool((self.values == float(asked)).any())

    # -- other packages -----------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """The values, where NumPy is given Scores; without their labels."""
        array = self.values.detach().float().cpu().numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """The values, where `torch.tensor` or `torch.as_tensor` is given Scores."""
        return self.values.detach().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Where the values are."""
        return self.values.__dlpack_device__()

    @classmethod
    def __torch_function__(cls, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse torch's functions, which keep no labels.

        Raises:
            ArgumentError: always; operators read it as "ask the other side", which is Scores.
        """
        name = getattr(called, "__name__", str(called))
        raise ArgumentError(
            f"torch.{name} keeps no labels of Scores: write scores.values in it, and"
            " scores.with_values(...) around what has the same shape."
        )


def _many(mine: Any) -> str:
    return f"{mine!r} holds {mine.values.numel()} values, not one: narrow it with .sel(...)."


def _check_truth(value: Any, sign: str) -> None:
    held = getattr(value, "values", None) if isinstance(value, Arithmetic) else None
    if held is None or not bool(((held == 0) | (held == 1)).all()):
        raise ArgumentError(
            f"{shown(value)} beside {sign} is no comparison of Scores, whose values are 0 or 1:"
            " write each in brackets, as in (scores > 0) & (scores < 2)."
        )


def _both(mine: Any, sign: str, other: Any, do: Callable[[Any, Any], Any]) -> Any:
    _check_truth(mine, sign)
    _check_truth(other, sign)
    return mine.joined(sign, other, do)
