"""Paired tests of many quantities at once, and the correction for how many there are.

`signed_ranks`: Wilcoxon's signed-rank test (1945) that a quantity is as often above as below 0, by
`scipy.stats.wilcoxon`: exact for few pairs, no assumption about the distribution but its symmetry.

`holm`: p-values of several comparisons, so that the chance of a single wrong one among all of them
is no larger than each p says (Holm 1979).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


def signed_ranks(differences: Any) -> np.ndarray:
    """The two-sided p-value of each quantity: Float[quantity]; 1 where nothing differs.

    Args:
        differences: Float[pair, quantity], one arm minus the other.
    """
    from scipy.stats import wilcoxon

    given = np.asarray(differences, dtype=float)
    p = np.ones(given.shape[1])
    some = (given != 0).any(0)
    if len(given) > 1 and some.any():
        with warnings.catch_warnings():  # of pairs without a difference, which are left out
            warnings.simplefilter("ignore")
            found: Any = wilcoxon(given[:, some], axis=0)
        p[some] = found.pvalue
    return np.where(np.isnan(p), 1.0, p)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, corrected; in the order given, NaN left out."""
    given = np.asarray(p, dtype=float)
    order = [i for i in np.argsort(given, kind="stable") if np.isfinite(given[i])]
    out, least = np.full(len(given), np.nan), 0.0
    for done, i in enumerate(order):
        least = out[i] = min(1.0, max(least, (len(order) - done) * given[i]))
    return out.tolist()
