"""Tables that display less than they hold: words as words, ranges as ranges, no raw numbers.

Everything but the display is a DataFrame's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

_ROWS = 200
"""As many rows are displayed whole."""


class ShownTable(pd.DataFrame):
    """A DataFrame that displays what `shown` makes of it."""

    @property
    def _constructor(self) -> Any:
        return type(self)

    def shown(self) -> pd.DataFrame:
        """What is displayed."""
        return pd.DataFrame(self)

    def __repr__(self) -> str:
        return repr(self.shown())

    def _repr_html_(self) -> str | None:
        html: Any = self.shown()
        return html._repr_html_()


class SiteTable(ShownTable):
    """The sites of a model: every row, layers as `0 to 7`, axes as words."""

    def shown(self) -> pd.DataFrame:
        """What is displayed."""
        plain = pd.DataFrame(self)
        for name, how in (("layers", spans), ("axes", ", ".join)):
            if name in plain.columns:
                plain = plain.assign(**{name: [how(one) for one in plain[name]]})
        return plain

    def __repr__(self) -> str:
        with _whole():
            return self.shown().to_string(max_rows=_ROWS)

    def _repr_html_(self) -> str | None:
        with _whole():
            return super()._repr_html_()


def spans(numbers: Sequence[int]) -> str:
    """Whole numbers in rising order in words: `0 to 7`, `0, 3, 5 to 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    far = [f"{a} to {b}" if b > a + 1 else f"{a}, {b}" if b > a else str(a) for a, b in runs]
    return ", ".join(far)


def _whole() -> Any:
    return pd.option_context("display.max_rows", _ROWS, "display.min_rows", _ROWS)
