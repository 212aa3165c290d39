"""The view that fits: chosen by axes and label types, never by the method that made the numbers."""

from __future__ import annotations

from typing import Any

from mmlens.errors import AddressError
from mmlens.prompt import Patch, Token
from mmlens.scores import Scores


def show(x: Any, picture: Any = None) -> Any:
    """Scores or a neuron table as the view that fits; the figure is returned.

    Args:
        picture: the photo that patches belong to, if there is one.

    Raises:
        AddressError: nothing fits; the sentence says how to narrow.
    """
    if not isinstance(x, Scores):
        if "neuron" in getattr(x, "columns", ()):
            from mmlens.view.table import neurons

            return neurons(x)
        raise AddressError(
            f"A {type(x).__name__} has no view: give Scores, or a table with a column 'neuron'."
        )
    if len(x.axes) == 1:
        labels = x.of(x.axes[0])
        if any(isinstance(one, Patch) for one in labels):
            from mmlens.view.photo import on_image

            return on_image(picture, x)
        if labels and all(isinstance(one, (Token, str)) for one in labels):
            from mmlens.view.words import tokens

            return tokens(x)
        from mmlens.view.grid import bars

        return bars(x)
    from mmlens.view.grid import heatmap

    return heatmap(x)
