"""E2: does the projection turn the picture into words already? (MMN 3.1, Table 2, Fig. 3, S.3)

1. Map each soft-prompt vector x_i to the 5 tokens of highest cosine similarity in the model's input
   embedding. Control: as many random vectors, of the same lengths (the paper's distribution is not
   given; a cosine has no scale).
2. Score the token lists against picture and captions: the mean, and the largest, over patches.
3. Compare the pictures' scores by the Kolmogorov-Smirnov statistic D = sup |F_1 - F_2|: prompts
   with random vectors, and with 5 nouns of the human captions.

Arms: "prompt", "random", "nouns" (5 nouns drawn from the captions), "caption" (the model's own).

The paper takes a p-value above .5 for equality; but a test that finds no difference proves none. So
D is tested against a margin too, in both directions, with the pictures paired; and as there are
several metrics, means and maxima and two pairs of arms, all p-values are corrected for their number
(`comparisons`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.nearest_tokens import nearest_tokens
from mmlens.model.targets import one
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.comparisons import MARGIN, distance, holm
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule, nouns, rule_for
from mmlens.papers.scoring import Scorer, default_scorers, values_of
from mmlens.papers.tables import finished, used
from mmlens.values.addresses import places
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

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
    prompt: str = PROMPT,
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
        prompt, noun, max_new_tokens: see `explained`.

    Returns:
        arm, place (index of the patch), text (tokens or words separated by commas), cosine (of the
        nearest token), skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    random = asked.random()
    soft = one(model, Prompt(sample.image, prompt))
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
    return asked.answered(rows)


def summary(
    table: pd.DataFrame,
    samples: Iterable[Sample],
    scorers: Mapping[str, Scorer] | None = None,
    *,
    margin: float = MARGIN,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores by arm, and how far the arms lie apart: experiment, arm, metric, over, mean, ..., p.

    `over` says whether a picture counts by the mean or the max over its patches. The cosine to the
    nearest token is a metric too. Rows of metric "D of ..." hold a Kolmogorov-Smirnov statistic and
    its interval, and the p-values of three tests, corrected for the number of comparisons (those of
    cosines apart): `p` small, the arms differ at all; `p_equal` small, they lie within the margin;
    `p_beyond` small, they lie further apart.

    Args:
        margin: the D from which on arms are told apart.
    """
    rows = used(table, "arm", "text", "cosine")
    scored, settings = values_of(
        rows[["sample", "arm", "text"]], samples, default_scorers() if scorers is None else scorers
    )
    cosine = rows[["sample", "arm"]].assign(metric="cosine", value=rows["cosine"].astype(float))
    every = pd.concat([scored.drop(columns="text"), cosine.dropna()], ignore_index=True)
    groups: Any = every.groupby(["sample", "arm", "metric"], sort=False)["value"]
    parts = [getattr(groups, over)().reset_index().assign(over=over) for over in ("mean", "max")]
    by_picture = pd.concat(parts, ignore_index=True)
    with_gaps = with_differences(by_picture, *PAIRS)
    out = summarise(with_gaps, ["arm", "metric", "over"], draws=draws, seed=seed)
    apart = _distances(by_picture, margin=margin, draws=draws, seed=seed)
    whole = pd.concat([out, apart], ignore_index=True)
    return finished(whole, "E2", table, margin=margin, draws=draws, seed=seed, metrics=settings)


def _distances(by_picture: Any, **how: Any) -> pd.DataFrame:
    """One row per metric, way to count a picture, and pair of arms."""
    rows = []
    for (metric, over), part in by_picture.groupby(["metric", "over"], sort=False):
        arms = part.pivot(index="sample", columns="arm", values="value")
        for one_arm, other in PAIRS:
            pair = arms.reindex(columns=[one_arm, other]).dropna()
            if len(pair):
                about = {"arm": f"{one_arm} ~ {other}", "metric": f"D of {metric}", "over": over}
                found = distance(pair[one_arm], pair[other], **how)._asdict()
                rows.append({**about, **found, "margin": how["margin"], "n": len(pair)})
    table: Any = pd.DataFrame(rows)
    if len(table):
        read = table["metric"] != "D of cosine"  # lengths of arrows are not what is read there
        for name in ("p", "p_equal", "p_beyond"):
            for rows in (read, ~read):
                table.loc[rows, name] = holm(table.loc[rows, name].tolist())
    return table


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
