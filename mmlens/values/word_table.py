"""A table that shows its words as words: what `decode` and `look` return is displayed so.

    best = mm.decode(model, neurons)
    best                        # neuron, sign, words: "dog, puppy, ...", interpretable
    best["probs"]               # is there, and only not shown

Everything but the display is a DataFrame's.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmlens.values.shown_table import ShownTable

HIDDEN = ("probs",)
"""Columns of raw numbers that the display leaves out."""


class WordTable(ShownTable):
    """A DataFrame whose display has words in place of lists, and no lists of numbers."""

    def shown(self) -> pd.DataFrame:
        """What is displayed."""
        columns = [name for name in self.columns if name not in HIDDEN or len(self.columns) == 1]
        plain: Any = pd.DataFrame(self)[columns]
        if "words" in columns:
            plain = plain.assign(words=[_told(words) for words in plain["words"]])
        return plain


def _told(words: Any) -> Any:
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        return words
    return ", ".join(word.strip() if word.strip().isprintable() else repr(word) for word in words)
