"""Checks of the arguments of views: scores, a box, a table, a title, a Look.

Each function returns the checked value; errors name the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.values.arguments import count, function, instance, number, several, shown, text
from mmlens.values.errors import AddressError, ArgumentError
from mmlens.values.scores import Scores
from mmlens.view.style.paint import Box

if TYPE_CHECKING:
    import pandas as pd

_FAR = 4
"""The largest distance of a box's edge from the picture's corner, in sides of the picture."""
_LOOK = ("picture", "prompt", "caption", "token", "maps", "table", "activations", "box", "about",
         "before", "without", "together", "lens", "firing", "decoded")  # fmt: skip


def scores(value: Any, name: str = "scores") -> Scores:
    """Scores of real numbers, at least one; booleans become 1 and 0.

    A tensor or an array of numbers has the axes row and column, and of one axis `place`.
    """
    value = _named(value) if is_bare(value) else value
    found = instance(value, name, Scores, "Scores, such as mmlens.attribute returns")
    if 0 in found.shape or found.values.is_complex():
        what = "complex numbers" if found.values.is_complex() else "no numbers"
        raise AddressError(f"{found!r} holds {what}, and a view shows real ones: choose others.")
    if "bool" in str(found.values.dtype):
        return Scores(found.values.float(), found.axes, found.labels, found.about)
    return found


def narrower(scores: Scores, most: int) -> str:
    """How Scores of more axes than a view has get fewer, with axes that they have."""
    if len(scores.axes) <= most:
        write = {0: "scores.item() is the number", 1: "view.bars(scores) shows one axis"}
        return write.get(len(scores.axes), "give one number for each place")
    gone = ", ".join(map(repr, scores.axes[most:]))
    return (
        f"narrow it, as in scores.sel({scores.axes[0]}=...), or reduce it, as in scores.sum({gone})"
    )


def scores_first(first: Any, second: Any) -> tuple[Any, Any]:
    """Scores and a picture, also where the picture was written first."""
    return (second, first) if isinstance(second, Scores) else (first, second)


def is_bare(value: Any) -> bool:
    """Whether these are numbers without names: an array, a tensor."""
    numbers = hasattr(value, "dtype") and hasattr(value, "ndim") and not hasattr(value, "columns")
    return numbers and value.ndim in (1, 2) and str(value.dtype) not in ("object", "str")


def _named(value: Any) -> Scores:
    """Numbers without names as Scores."""
    import numpy as np
    import torch

    if not isinstance(value, torch.Tensor):
        value = np.array(value)  # a copy: that of a Series is not writable
    values = torch.as_tensor(value)
    return Scores(values, ("row", "column") if values.ndim == 2 else ("place",))


def title(value: Any, told: str = "") -> str:
    """The title that was given, or `told` where there is none."""
    return told if value is None else text(value, "title") or told


def box(value: Any, photo: Image.Image) -> Box:
    """The pixels that a grid covers, at least one of them on the picture; by default all of it."""
    if value is None:
        return (0.0, 0.0, float(photo.width), float(photo.height))
    far = _FAR * max(photo.size)
    edges = [number(edge, "box", least=-far, most=far) for edge in several(value, "box")]
    if len(edges) == 4:
        x0, y0, x1, y1 = edges
        across = x0 < x1 and x0 < photo.width and x1 > 0
        if across and y0 < y1 and y0 < photo.height and y1 > 0:
            return (x0, y0, x1, y1)
    raise ArgumentError(
        f"box={shown(value)}: write (x0, y0, x1, y1), left before right and upper before lower, in"
        f" pixels of the picture, which is {photo.width} wide and {photo.height} high."
    )


def table(
    value: Any, columns: Sequence[str], call: str, *, name: str = "table", empty: bool = False
) -> pd.DataFrame:
    """A table with these columns, as `call` returns it; not empty unless `empty`."""
    import pandas as pd

    frame = instance(value, name, pd.DataFrame, f"the table that {call} gives")
    lacking = [column for column in columns if column not in frame.columns]
    if (lacking and not (empty and not len(frame))) or not (len(frame) or empty):
        *before, last = map(repr, columns)
        named = f"{', '.join(before)} and {last}"
        raise AddressError(
            f"This view needs rows with the columns {named}, as {call} gives them;"
            f" this {name} has {len(frame)} rows and {list(frame.columns)}."
        )
    for column, check in _COLUMNS.items():
        for one in frame[column] if column in frame.columns else ():
            check(one, f"{name}[{column!r}]")
    return frame


def _probs(value: Any, name: str) -> None:
    for one in () if value is None else several(value, name, least=0):
        number(one, name)


def _score(value: Any, name: str) -> None:
    if not missing(value):
        number(value, name)


def missing(value: Any) -> bool:
    """Whether a cell is empty: None, or NaN as pandas puts it there."""
    return value is None or (isinstance(value, float) and value != value)


_COLUMNS: dict[str, Callable[[Any, str], Any]] = {
    "score": _score,
    "value": number,
    "rank": partial(count, least=0),
    "words": partial(several, least=0),
    "probs": _probs,
    "map": scores,
}
"""The checks of columns that views read, in any table."""


def by_name(value: Any, name: str, write: str) -> Mapping[Any, Any]:
    """A mapping."""
    return instance(value, name, Mapping, write)


def pictures(value: Any) -> Callable[[Any], Any]:
    """A function from a sample to its picture, from a data set, a function or a mapping."""
    if hasattr(value, "ids") and hasattr(value, "hash"):  # a data set
        at = {sample: place for place, sample in enumerate(value.ids)}
        return lambda sample: value[at[sample]].image
    if callable(value):
        return function(value, "pictures", "a function of a sample's name", takes=1)
    if hasattr(value, "keys"):  # a mapping, or a Series
        return lambda sample: value[sample]
    raise ArgumentError(
        f"pictures={shown(value)}: give a mapping from sample to picture, or a function."
    )


def look(value: Any) -> Any:
    """A `Look`, or an object with its attributes."""
    lacking = [name for name in _LOOK if not hasattr(value, name)]
    if lacking:
        raise ArgumentError(
            f"seen={shown(value)} is nothing that was read of a picture, it has no {lacking[0]!r}:"
            " give what mmlens.look(model, picture, full=True) returned, or a list of such."
        )
    scores(value.maps, "maps")
    scores(value.activations, "activations")
    return value
