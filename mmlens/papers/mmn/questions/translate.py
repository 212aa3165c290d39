"""E1: do neurons translate what is in a picture into words? (MMN 2.2, Table 1)

1. Caption each picture at T = 0, take its first noun c, and g[k, c] of all layers (eq. 2).
2. Take the 100 pairs of highest g, decode their units to 10 tokens, keep the interpretable ones.
3. The text of a unit is its tokens, separated by commas.
4. Score each text against the picture and against each human caption, averaged over captions.
5. Per picture keep the largest score of its units; report the mean over pictures.

Arms: "neurons"; "random", the same neurons with the wrong pictures; "caption", the model's own
caption, the upper end. The wrong pictures are drawn several times, and a picture's random value is
the mean over the draws: one draw alone adds its luck to every difference. The question is
`top_units`; a sweep of it serves E4 and E6 too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.decoded_units import top_units as top_units
from mmlens.papers.scoring import Scorer, default_scorers, values_of
from mmlens.papers.tables import ExperimentError, finished, used
from mmlens.values.arguments import choice, count

SHUFFLES = ("pictures", "neurons")
TIMES = 5


def summary(
    table: pd.DataFrame,
    samples: Iterable[Sample],
    scorers: Mapping[str, Scorer] | None = None,
    *,
    keep: str = "interpretable",
    shuffle: str = "pictures",
    times: int = TIMES,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean over pictures of the best unit's score: experiment, arm, metric, mean, low, high, n, ...

    Args:
        table: of `top_units`, with a column sample.
        samples: those it is about.
        scorers: by name (see `scoring`); by default the offline word overlap.
        keep: "interpretable" units or "all".
        shuffle: how pairs of the random arm are made (see `mismatched`).
        times: how often they are drawn. With a metric that takes its time, fewer.
    """
    seeds = range(count(seed, "seed", least=0), seed + count(times, "times", most=1000))
    rows = used(table, "neuron", "words", "interpretable", "caption")
    units: Any = texts(rows, keep)
    wrong = pd.concat([mismatched(units, shuffle, s).assign(draw=s - seed) for s in seeds])
    captions = rows.drop_duplicates("sample")[["sample", "caption"]]
    captions = captions.rename(columns={"caption": "text"})
    arms = {"neurons": units, "random": wrong, "caption": captions}
    pairs: Any = pd.concat([part.assign(arm=arm) for arm, part in arms.items()], ignore_index=True)
    pairs = pairs[["arm", "sample", "text", "draw"]].fillna({"draw": 0})
    scored, settings = values_of(pairs, samples, default_scorers() if scorers is None else scorers)
    groups: Any = scored.groupby(["sample", "arm", "metric", "draw"], sort=False)["value"]
    best = groups.max().groupby(["sample", "arm", "metric"], sort=False).mean().reset_index()
    best = with_differences(best, ("neurons", "random"), ("caption", "neurons"))
    out = summarise(best, ["arm", "metric"], draws=draws, seed=seed)
    return finished(
        out, "E1", table, keep=keep, shuffle=shuffle, times=times, draws=draws, seed=seed,
        metrics=settings,
    )  # fmt: skip


def texts(rows: Any, keep: str = "interpretable") -> pd.DataFrame:
    """The different units of each picture and their texts: sample, neuron, text."""
    choice(keep, "keep", ("interpretable", "all"), error=ExperimentError)
    if keep == "interpretable":
        rows = rows[rows["interpretable"].astype(bool)]
    units = rows.drop_duplicates(["sample", "neuron"])
    if not all(isinstance(tokens, Iterable) for tokens in units["words"]):
        raise ExperimentError("Column 'words' of this table holds no lists of tokens.")
    text = [", ".join(token.strip() for token in tokens) for tokens in units["words"]]
    return units[["sample", "neuron"]].assign(text=text).reset_index(drop=True)


def mismatched(units: Any, shuffle: str = "pictures", seed: int = 0) -> pd.DataFrame:
    """The same neurons with other pictures; how often each neuron occurs stays as it is.

    Args:
        shuffle: "pictures" gives every picture all neurons of one other picture, never its own;
            "neurons" deals all neurons out anew, each picture getting as many as it had.

    Raises:
        ExperimentError: fewer than two pictures have neurons.
    """
    choice(shuffle, "shuffle", SHUFFLES, error=ExperimentError)
    names = units["sample"].unique().tolist()
    if len(names) < 2:
        raise ExperimentError("Random pairs take at least two pictures that have neurons.")
    rng = np.random.default_rng(count(seed, "seed", least=0))
    if shuffle == "neurons":
        return units.assign(sample=units["sample"].to_numpy()[rng.permutation(len(units))])
    around = [names[i] for i in rng.permutation(len(names))]
    other = dict(zip(around, around[1:] + around[:1], strict=True))  # a cycle: none meets itself
    return units.assign(sample=units["sample"].map(other))
