"""E2: does the projection turn the picture into words already? (MMN 3.1, Table 2, Fig. 3, S.3)

1. Map each soft-prompt vector x_i to the 5 tokens of highest cosine similarity in the model's input
   embedding. Control: as many random vectors, of the same lengths (the paper's distribution is not
   given; a cosine has no scale).
2. Score the token lists against picture and captions: the mean, and the largest, over patches.
3. Compare the pictures' scores by the two-sample Kolmogorov-Smirnov statistic
   D = sup |F_1 - F_2|: prompts with random vectors, and with 5 nouns of the human captions.

Arms: "prompt", "random", "nouns" (5 nouns drawn from the captions), "caption" (the model's own).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.experiments.bootstrap import DRAWS, summarise, with_differences
from mmlens.experiments.explained import WORDS, Rule, nouns, rule_for
from mmlens.experiments.scoring import Scorer, default_scorers, values_of
from mmlens.experiments.tables import answered, finished, generator, used
from mmlens.methods.nearest_tokens import nearest_tokens
from mmlens.neurons import places
from mmlens.prompt import Patch, Prompt
from mmlens.targets import one

if TYPE_CHECKING:
    from mmlens.model import HookedVLM

COLUMNS = ("arm", "place", "text", "cosine")
PAIRS = (("prompt", "random"), ("nouns", "prompt"))


def nearest_words(
    model: HookedVLM,
    sample: Sample,
    *,
    k: int = 5,
    vectors: int | None = None,
    drawn_nouns: int = 5,
    caption: bool = True,
    words: str = WORDS,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """The words nearest to a picture's soft prompt, and what they are compared with.

    Args:
        k: tokens per vector.
        vectors: so many vectors, drawn at random; by default all.
        drawn_nouns: how many nouns of the captions.
        caption: whether the model's own caption is generated as an arm.
        words, noun, max_new_tokens: see `explained`.

    Returns:
        arm, place (index of the patch), text (tokens or words separated by commas), cosine (of the
        nearest token), skipped, options.
    """
    asked = {"k": k, "vectors": vectors, "drawn_nouns": drawn_nouns, "caption": caption}
    asked |= {"words": words, "noun": noun, "max_new_tokens": max_new_tokens, "seed": seed}
    random = generator(seed, sample)
    soft = one(model, Prompt(sample.image, words))
    where = torch.tensor(places(soft.labels[0], Patch, "pos"))
    if vectors is not None:
        where = where[torch.randperm(len(where), generator=random)[:vectors].sort().values]
    real = soft.vectors[0, where.to(soft.vectors.device)]
    noise = torch.randn(real.shape, generator=random).to(real)
    noise = noise / noise.norm(dim=-1, keepdim=True) * real.norm(dim=-1, keepdim=True)
    rows = _lists(model, "prompt", real, where, k) + _lists(model, "random", noise, where, k)
    rule = rule_for(model, noun)
    named = [word for text in sample.captions for word in nouns(text, rule)]
    if named:
        some = torch.randperm(len(named), generator=random)[:drawn_nouns].tolist()
        rows.append(("nouns", 0, ", ".join(named[i] for i in some), np.nan))
    if caption:
        rows.append(("caption", 0, model.generate(soft, max_new_tokens), np.nan))
    return answered(pd.DataFrame(rows, columns=list(COLUMNS)), model, **asked)


def summary(
    table: pd.DataFrame,
    samples: Iterable[Sample],
    scorers: Mapping[str, Scorer] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores by arm, and how far the arms lie apart: experiment, arm, metric, over, mean, ..., p.

    Rows of metric "D of ..." hold a Kolmogorov-Smirnov statistic in `mean` and its p-value in `p`;
    `over` says whether a picture counts by the mean or the max over its patches. The cosine to the
    nearest token is a metric too.
    """
    rows = used(table, "arm", "text", "cosine")
    scored, settings = values_of(
        rows[["sample", "arm", "text"]], samples, scorers or default_scorers()
    )
    cosine = rows[["sample", "arm"]].assign(metric="cosine", value=rows["cosine"].astype(float))
    every = pd.concat([scored.drop(columns="text"), cosine.dropna()], ignore_index=True)
    groups: Any = every.groupby(["sample", "arm", "metric"], sort=False)["value"]
    parts = [getattr(groups, over)().reset_index().assign(over=over) for over in ("mean", "max")]
    by_picture = pd.concat(parts, ignore_index=True)
    with_gaps = with_differences(by_picture, *PAIRS)
    out = summarise(with_gaps, ["arm", "metric", "over"], draws=draws, seed=seed)
    whole = pd.concat([out, _distances(by_picture)], ignore_index=True)
    return finished(whole, "E2", table, draws=draws, seed=seed, metrics=settings)


def kolmogorov_smirnov(one: Any, other: Any) -> tuple[float, float]:
    """(D, p): the largest distance of two distribution functions, and how often chance exceeds it.

    Source: scipy.stats.ks_2samp, two-sided.
    """
    from scipy.stats import ks_2samp

    found: Any = ks_2samp(np.asarray(one, dtype=float), np.asarray(other, dtype=float))
    return float(found.statistic), float(found.pvalue)


def _distances(by_picture: Any) -> pd.DataFrame:
    """One row per metric, way to count a picture, and pair of arms."""
    rows = []
    for (metric, over), part in by_picture.groupby(["metric", "over"], sort=False):
        arms = {arm: values["value"].to_numpy() for arm, values in part.groupby("arm")}
        for one_arm, other in PAIRS:
            if one_arm in arms and other in arms:
                distance, p = kolmogorov_smirnov(arms[one_arm], arms[other])
                found = {"arm": f"{one_arm} ~ {other}", "metric": f"D of {metric}", "over": over}
                rows.append({**found, "mean": distance, "p": p, "n": len(arms[one_arm])})
    return pd.DataFrame(rows)


def _lists(
    model: HookedVLM, arm: str, vectors: torch.Tensor, where: torch.Tensor, k: int
) -> list[tuple[str, int, str, float]]:
    """A row per vector: the tokens nearest to it."""
    near: Any = nearest_tokens(model, vectors[None], k)
    tokens = near["token"].str.strip().to_numpy().reshape(len(vectors), -1)
    cosines = near["cosine"].to_numpy().reshape(len(vectors), -1)
    return [
        (arm, place, ", ".join(words), float(values[0]))
        for place, words, values in zip(where.tolist(), tokens, cosines, strict=True)
    ]
