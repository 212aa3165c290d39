"""Words as text and as coloured HTML; a token is data, never markup.

A vocabulary has whatever it was trained on: `<s>`, `<img src=...>`, line feeds, characters that
reverse the reading direction. `printed.visible` makes each of them visible, `escape` makes it safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

from mmlens.values.arguments import number, several
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style import given
from mmlens.view.style.baselines import from_nothing
from mmlens.view.style.html import Html, framed
from mmlens.view.style.printed import label
from mmlens.view.style.titles import title_of

_RAISES, _LOWERS = "31,119,255", "255,82,46"


def tokens(words: Sequence[Any] | Scores, values: Any = None, *, title: str | None = None) -> Html:
    """Words coloured by their values, as HTML: blue raises, red lowers, opacity by magnitude.

    Args:
        words: the words, or Scores of one axis (then `values` is left out).
        values: one number per word; None and NaN stay uncoloured.

    Raises:
        AddressError: not one value per word.
    """
    told, about = "Words by value", ""
    if isinstance(words, Scores):
        if len(words.axes) != 1:
            raise AddressError(f"Coloured words need Scores of one axis, and {words!r} has others.")
        words = from_nothing(words)
        told, about = title_of(words)
        words, values = list(words.of(words.axes[0])), words.numpy()
    texts, numbers = [label(word) for word in several(words, "words", least=0)], _numbers(values)
    if len(texts) != len(numbers):
        raise AddressError(
            f"There are {len(texts)} words and {len(numbers)} values: give one each."
        )
    top = max((abs(n) for n in numbers if math.isfinite(n)), default=0.0) or 1.0
    spans = "".join(_span(text, n, top) for text, n in zip(texts, numbers, strict=True))
    key = f"blue raises, red lowers; full colour is {top:.3g}"
    body = (
        f'<div class="mmlens-tokens" style="font:14px/2 ui-monospace,Menlo,Consolas,monospace"'
        f' role="group" aria-label="words coloured by value, from {-top:.3g} to {top:.3g}">'
        f"{spans}</div>"
    )
    head, told = given.title(title, told), " · ".join(part for part in (about, key) if part)
    return framed(
        head,
        told,
        body,
        rows=lambda: pd.DataFrame({"token": texts, "value": numbers}),
        still=lambda: sheet(head, told, [SheetRow(words=_behind(texts, numbers, top))]),
    )


def _behind(texts: list[str], numbers: list[float], top: float) -> list[tuple[str, str, float]]:
    """Words with the colour behind each, and how opaque it is."""
    return [
        (text, f"rgb({_RAISES if n >= 0 else _LOWERS})", _size(n, top))
        for text, n in zip(texts, numbers, strict=True)
    ]


def _size(value: float, top: float) -> float:
    """Text stays legible at half opacity."""
    return 0.0 if math.isnan(value) else 0.5 * min(abs(value) / top, 1)


def _span(text: str, value: float, top: float) -> str:
    none = math.isnan(value)
    size = _size(value, top)
    colour = _RAISES if value >= 0 else _LOWERS
    told = "no value" if none else f"{value:+.4g}"
    return (
        f'<span style="background:rgba({colour},{size:.3f});padding:2px 3px;margin:0 1px;'
        f'border-radius:3px;white-space:pre" title="{escape(text)}: {told}">{escape(text)}</span>'
    )


def _numbers(values: Any) -> list[float]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    values = values.tolist() if hasattr(values, "tolist") else values
    return [_number(one) for one in several(values, "values", least=0)]


def _number(value: Any) -> float:
    """A number, also an infinite one; NaN where there is none."""
    if value is None:
        return math.nan
    value = value.item() if getattr(value, "ndim", None) == 0 else value  # of NumPy or torch
    odd = isinstance(value, float) and not math.isfinite(value)
    return value if odd else number(value, "values")
