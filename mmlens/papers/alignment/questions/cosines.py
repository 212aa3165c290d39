"""How near are the picture's positions to those of words, after each layer? (their section 3)

The prompt is the picture, the words behind it, and the model's own caption up to the noun that the
other question explains. Per layer, the mean cosine over all pairs of positions: "picture - words",
"picture - picture", "words - words" (`mm.alignment`).

Positions: all. Path: none. Streams lie in a narrow cone, so that a high cosine alone says nothing:
what compares is the cosine between the kinds against those within.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.alignment import PAIRS, alignment
from mmlens.papers.bootstrap import DRAWS, summarise
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.tables import UNNAMED, finished, used

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("pair", "layer", "cosine")
BETWEEN, PICTURE, WORDS = PAIRS[:3]


def mean_cosines(
    model: HookedVLM,
    sample: Sample,
    *,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The mean cosine between and within picture and words, after each layer.

    Returns:
        pair ("picture - words", "picture - picture", "words - words"), layer, cosine, skipped,
        options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    found = alignment(model, seen.soft)
    values = found.values.tolist()
    return asked.answered([
        (pair, layer, values[row][column])
        for row, pair in enumerate(found.of("pair")) if pair in PAIRS[:3]
        for column, layer in enumerate(found.of("layer"))
    ])  # fmt: skip


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Means over pictures, by pair and layer."""
    rows = used(table, *COLUMNS)
    long: Any = rows[["sample", "pair", "layer"]].assign(
        metric="cosine", value=rows["cosine"].astype(float)
    )
    out = summarise(long, ["pair", "layer", "metric"], draws=draws, seed=seed)
    return finished(out, "cosines", table, draws=draws, seed=seed)
