"""How well a number tells two kinds of mentions apart, with an interval over pictures.

    AUROC = P(number of one > number of the other), ties count one half

Of N pictures, N are drawn with replacement (a picture's mentions come together), and the interval
is that of the percentiles; draws without one of the kinds are left out. With fewer than `LEAST`
pictures of either kind nothing is said: the value is given, the interval is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mmlens.papers.bootstrap import DRAWS, LEAST, MOST
from mmlens.tally.intervals import LEVEL
from mmlens.values.arguments import count


class ToldApart(NamedTuple):
    """AUROC, its interval (NaN where undecided), and how many pictures have either kind."""

    auroc: float
    low: float
    high: float
    n: int
    n_others: int


def apart(
    values: Any, other_values: Any, pictures: Any, other_pictures: Any,
    *, draws: int = DRAWS, seed: int = 0,
) -> ToldApart:  # fmt: skip
    """How often a value of the first kind is above one of the second.

    Args:
        values, other_values: Float[mention] of the two kinds.
        pictures, other_pictures: which picture each mention is of.
    """
    one, other = np.asarray(values, float), np.asarray(other_values, float)
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    names, at = np.unique([*map(str, pictures), *map(str, other_pictures)], return_inverse=True)
    first, second = at[: len(one)], at[len(one) :]
    n, n_others = len(set(first.tolist())), len(set(second.tolist()))
    if not n or not n_others:
        return ToldApart(np.nan, np.nan, np.nan, n, n_others)
    wins = (one[:, None] > other[None]) + 0.5 * (one[:, None] == other[None])
    found = float(wins.mean())
    if min(n, n_others) < LEAST:
        return ToldApart(found, np.nan, np.nan, n, n_others)
    size = len(names)
    times = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), draws)
    weights, other_weights = times[:, first].astype(float), times[:, second].astype(float)
    pairs = weights.sum(1) * other_weights.sum(1)
    some = pairs > 0
    drawn = ((weights[some] @ wins) * other_weights[some]).sum(1) / pairs[some]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return ToldApart(found, float(low), float(high), n, n_others)
