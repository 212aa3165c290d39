"""The typographic attack picture by picture, in two ways of writing.

paper    eight words of 20 pixels on 288 x 288: the published attack, pixel for pixel
large    the word once, as large as the picture is wide, for encoders that read small pictures

The control writes a word that names no class. Of each picture and way: how many of the words it is
called by that it was not called by before, minus the same of the control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mmlens.datasets.written_words import (
    ATTACK_PLACES,
    ATTACK_SIZE,
    attack_canvas,
    font,
    pixel_cover,
    written_over,
)
from mmlens.methods.named_classes import named_logits
from mmlens.methods.typographic_attack import fractions

CONTROL = "xqvz"
"""A word that names no class."""
WIDE = 0.94
"""Share of the picture's width that a large word takes."""
HIGHEST = 110
"""Pixels of a large word's font at most, of 288."""


def by_paper(picture: Image.Image, word: str) -> Image.Image:
    """The published attack."""
    return written_over(picture, word, at=ATTACK_PLACES)


def by_width(picture: Image.Image, word: str) -> Image.Image:
    """The word once, across the middle."""
    left, _, right, _ = font(100).getbbox(word)
    size = min(HIGHEST, int(100 * WIDE * ATTACK_SIZE / max(right - left, 1)))
    box = font(size).getbbox(word)
    x = (ATTACK_SIZE - (box[2] - box[0])) // 2 - int(box[0])
    y = (ATTACK_SIZE - (box[3] - box[1])) // 2 - int(box[1])
    return written_over(picture, word, size=size, stroke=max(1, size // 18),
                        at=[(max(x, 0), max(y, 0))])  # fmt: skip


WAYS: dict[str, Callable[[Image.Image, str], Image.Image]] = {"paper": by_paper, "large": by_width}


def attacks(
    model: Any,
    pictures: Sequence[Any],
    labels: Sequence[str],
    words: Sequence[str],
    classes: Sequence[str],
    **how: Any,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The table of attacks, and per way Float[picture]: success minus control.

    The table has the columns of `typographic_attack` and `way`; a word attacks its own class.

    Args:
        labels: the true class of each picture.
        words: classes whose names are written.
        how: of `named_logits`: template, probe.
    """
    clean = [attack_canvas(one) for one in pictures]
    seen = named_logits(model, clean, classes, **how)
    before, rows, gaps = seen.best, [], {}
    for way, write in WAYS.items():
        control = _answers(model, clean, write, CONTROL, classes, how)[0]
        gap = np.zeros(len(clean))
        for word in words:
            after, cover = _answers(model, clean, write, word, classes, how)
            parts = zip(before, after, control, strict=True)
            gap += [(b != word) * (int(a == word) - int(c == word)) for b, a, c in parts]
            found = fractions(before, after, word)
            rows.append({
                "way": way, "target": word, "text": word, **found, "avg_img_l0_norm_diff": cover,
                "n": len(clean), "baseline_accuracy": _agree(before, labels),
                "accuracy": _agree(after, labels), "classifier": seen.classifier,
            })  # fmt: skip
        gaps[way] = gap / len(words)
        rows.append({
            "way": way, "target": "(control)", "text": CONTROL, "n": len(clean),
            "baseline_accuracy": _agree(before, labels), "accuracy": _agree(control, labels),
            "classifier": seen.classifier,
        })  # fmt: skip
    return pd.DataFrame(rows), gaps


def _answers(
    model: Any, clean: Sequence[Image.Image], write: Any, word: str, classes: Any, how: Any
) -> tuple[list[str], float]:
    """What pictures with a word are called, and the mean share of pixels that it covers."""
    drawn = [write(one, word) for one in clean]
    cover = float(np.mean([pixel_cover(*pair) for pair in zip(clean, drawn, strict=True)]))
    return named_logits(model, drawn, classes, **how).best, cover


def _agree(answers: Sequence[str], truth: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(answers, truth, strict=True)]))
