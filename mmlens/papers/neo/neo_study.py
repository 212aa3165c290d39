"""The three tools asked of the same pictures: one table of means with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.neo.questions import object_tokens, patch_words, windows
from mmlens.papers.tables import ask

if TYPE_CHECKING:
    from mmlens.datasets.sample import Sample
    from mmlens.model.hooked_vlm import HookedVLM


def study(
    model: HookedVLM,
    samples: Iterable[Sample],
    *,
    share: float = 0.01,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """What is lost without a thing's patches, what they say, and where they are read.

    Args:
        share, prompt, noun, max_new_tokens: as in the questions.

    Returns:
        Columns experiment ("object tokens", "patch words", "windows"), arm, metric ("lost", "said",
        "share"), layer, layers, mean, low, high, n, skipped, options.
    """
    every = list(samples)
    tools: list[tuple[Any, Any]] = [
        (object_tokens.token_ablations, object_tokens.summary),
        (patch_words.word_shares, patch_words.summary),
        (windows.window_effects, windows.summary),
    ]
    asked = {"share": share, "prompt": prompt, "noun": noun, "max_new_tokens": max_new_tokens}
    tables = [ask(question, model, every, seed=seed, **asked) for question, _ in tools]
    found = [summary(table) for (_, summary), table in zip(tools, tables, strict=True)]
    columns = ["experiment", "arm", "metric", "layer", "layers", "mean", "low", "high", "n",
               "skipped", "options"]  # fmt: skip
    return pd.concat(found, ignore_index=True).reindex(columns=columns)
