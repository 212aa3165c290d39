"""Two arms compared picture by picture, and many such comparisons at once.

`sign_flips`: whether a mean difference could be chance (Fisher 1935): the p-value is the share of
random signs of the pictures' differences whose mean is as large.

`distances`: how far the distributions of two arms lie apart, D = sup |F_1 - F_2| (Kolmogorov and
Smirnov), and three p-values, each of which says its null hypothesis is unlikely:

    p          D is 0            arms are swapped within pictures at random
    p_equal    D >= margin       equivalence: pictures are drawn anew, D* reaches the margin
    p_beyond   D <= margin       in these draws, F_1 - F_2 moves somewhere by D - margin

Not to find a difference proves nothing: a small study never finds one. Equivalence is shown by
rejecting that D is as large as a stated margin (Schuirmann 1987; Wellek 2010). D is too large on
average, a supremum of noise, and D* more so: p_equal errs to the safe side, and for p_beyond (and
the lower end of D's interval) the whole difference of the distributions gets a band, not D.

`pairing`: whether what belongs together fits better than what does not: the p-value is the share of
random dealings of one side to the other that fit as well.

`holm`: p-values of several comparisons, so that the chance of a single wrong one among all of them
is no larger than each p says (Holm 1979).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.tables import ExperimentError
from mmlens.tally.paired import holm as holm
from mmlens.values.arguments import count, number

MARGIN = 0.2
"""Distributions that are nowhere further apart are taken as equal: at no score does the share of
pictures below it differ by a fifth. The paper's own values are .037 (equal) and above .9."""


class Distance(NamedTuple):
    """D, its interval, and the p-values of "no difference", "beyond" and "within the margin"."""

    mean: float
    low: float
    high: float
    p: float
    p_equal: float
    p_beyond: float


def distance(
    one: Any, other: Any, *, margin: float = MARGIN, draws: int = DRAWS, seed: int = 0
) -> Distance:
    """How far two arms lie apart that were measured on the same pictures.

    Args:
        one, other: Float[picture]; a picture that lacks one of them is left out.
        margin: the D from which on distributions are told apart.
    """
    margin, draws = number(margin, "margin", above=0, most=1), count(draws, "draws", most=MOST)
    pair = np.stack([np.asarray(one, dtype=float), np.asarray(other, dtype=float)])
    pair = pair[:, np.isfinite(pair).all(0)]
    n = pair.shape[1]
    if not n:
        raise ExperimentError("No picture has both arms: there is nothing to compare.")
    rng = np.random.default_rng(count(seed, "seed", least=0))
    apart = _Steps(pair)
    found = float(apart(np.ones((1, n)))[0])
    swapped = apart(rng.choice((-1.0, 1.0), size=(draws, n)))
    times = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    drawn, moved = apart(times), apart(times - 1)
    return Distance(
        found,
        max(0.0, found - float(np.quantile(moved, 0.95))),
        float(np.quantile(drawn, 0.975)),
        _share(swapped >= found - 1e-12),
        _share(drawn >= margin),
        _share(moved >= found - margin),
    )


def sign_flips(differences: Any, *, draws: int = 9999, seed: int = 0) -> float:
    """How often chance makes a mean difference as large, two-sided; exact for few pictures.

    Args:
        differences: Float[picture], one arm minus the other.
    """
    from scipy.stats import permutation_test

    given = np.asarray(differences, dtype=float)
    given = given[np.isfinite(given)]
    if not len(given):
        return float("nan")
    if len(given) == 1 or not given.any():
        return 1.0
    test: Any = permutation_test  # `random_state` is `rng` from scipy 1.15 on, which takes both
    found = test(
        (given,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=count(draws, "draws", most=MOST), random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def pairing(fits: Any, *, draws: int = 9999, seed: int = 0) -> float:
    """How often a random dealing fits as well as the true one, one-sided.

    Args:
        fits: Float[one, other], how well each of one side fits each of the other; the diagonal is
            the true dealing. Rows without a value are left out, with their columns.
    """
    given = np.asarray(fits, dtype=float)
    there = np.isfinite(given).all(1)
    given = given[there][:, there]
    n = len(given)
    if n < 2:
        return float("nan")
    rng, rows = np.random.default_rng(count(seed, "seed", least=0)), np.arange(n)
    orders = rng.permuted(np.tile(rows, (count(draws, "draws", most=MOST), 1)), axis=1)
    return _share(given[rows, orders].sum(1) >= given.diagonal().sum() - 1e-9)


class _Steps:
    """D for many weights of the pictures at once; a weight below 0 swaps a picture's arms."""

    def __init__(self, pair: np.ndarray) -> None:
        self.n = pair.shape[1]
        flat = pair.reshape(-1)
        order = np.argsort(flat, kind="stable")
        self.picture = order % self.n
        self.sign = np.where(order < self.n, 1.0, -1.0)
        steps = np.append(np.diff(flat[order]) > 0, True)  # F is read behind equal values
        self.ends = np.flatnonzero(steps)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """D[weighting], of weights Float[weighting, picture]."""
        up = np.cumsum(weights[:, self.picture] * self.sign, axis=1)[:, self.ends]
        return np.abs(up).max(1) / self.n


def _share(hits: np.ndarray) -> float:
    return (1 + int(hits.sum())) / (1 + len(hits))
