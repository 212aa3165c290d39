"""What an Edit puts in place: a number, a tensor, Scores, or a function of what stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError, MMLensError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import torch


def check_value(value: Any) -> None:
    """Refuse what can't become numbers when the edit acts."""
    import torch

    if isinstance(value, (Scores, torch.Tensor)) or callable(value):
        return
    try:
        torch.as_tensor(None if isinstance(value, bool) else value)  # a flag is no number
    except (TypeError, ValueError, RuntimeError):
        raise AddressError(
            f"An Edit can't put {shown(value)} in place of activations: give a number, a tensor,"
            " Scores, or a function from the tensor there to a tensor."
        ) from None


def called(edit: Any, old: torch.Tensor) -> Any:
    """What the function of an edit makes of the values there.

    Raises:
        AddressError: it fails; the sentence tells what it raised.
    """
    import torch

    try:
        return edit.value(old)
    except (MMLensError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise AddressError(
            f"The function of {edit!r} raised {type(error).__name__} for values of shape"
            f" {tuple(old.shape)}: {error}"
        ) from error
