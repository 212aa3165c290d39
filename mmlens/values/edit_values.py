"""The value of an Edit: a number, a tensor, Scores, or a function of the activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmlens.values.addresses import POSITIONS
from mmlens.values.arguments import function, shown
from mmlens.values.errors import AddressError, MMLensError, SiteError
from mmlens.values.labels import Label
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import torch


def check_value(value: Any) -> None:
    """Refuse a value that cannot become a tensor, or be called with one, when the edit acts."""
    import torch

    if isinstance(value, (Scores, torch.Tensor)):
        return
    if callable(value):
        write = "a function from the tensor there to a tensor"
        function(value, "value", write, takes=1, error=AddressError)
        return
    try:
        torch.as_tensor(None if isinstance(value, bool) else value)  # a flag is no number
    except (TypeError, ValueError, RuntimeError):
        raise AddressError(
            f"An Edit can't put {shown(value)} in place of activations: give a number, a tensor,"
            " Scores, or a function from the tensor there to a tensor."
        ) from None


def called(edit: Any, old: torch.Tensor) -> Any:
    """The result of an edit's function for the values there.

    Raises:
        AddressError: it fails; the error gives its exception.
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


def from_scores(
    edit: Any,
    layer: int | None,
    names: Mapping[str, tuple[Label, ...]],
    place: tuple[Any, ...],
    start: int,
    shapes: tuple[int, ...],
) -> torch.Tensor:
    scores: Scores = edit.value
    if layer is not None and "layer" in scores.axes:
        scores = scores.sel(layer=layer)
    extra = [axis for axis in scores.axes if axis not in edit.site.axes]
    if extra:
        raise SiteError(
            f"{scores!r} has axes {', '.join(extra)} that site {edit.site.name!r} does not"
            " have: narrow it with .sel(...)."
        )
    if "experts" in edit.address and "unit" in scores.axes:
        raise AddressError(
            f"The numbers of {scores!r} have no pairs of expert and unit: name the places by"
            " expert= and unit= instead of a list of Neurons."
        )
    shape = [1] * len(edit.site.axes)
    for dim, axis in enumerate(edit.site.axes):
        if axis not in scores.axes:
            continue
        here = place[dim].flatten().tolist()
        begin = edit.site.begins(axis, shapes, start)
        wanted = [names[axis][i + begin] for i in here] if axis in POSITIONS else here
        scores = scores.sel(**{axis: wanted})
        shape[dim] = len(here)
    return scores.values.reshape(shape)
