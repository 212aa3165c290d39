"""Means over pictures, and ratios of such means, with intervals that also hold for few pictures.

Of N pictures, N are drawn with replacement, many times (Efron 1979). Pictures are drawn, never
rows, because what one picture's neurons do is not independent; quantities of the same pictures
share the draws, and a difference of two arms is taken picture by picture (`differences`), so that
its interval is that of the paired comparison. Percentiles of the drawn means are too narrow when
pictures are few: what they call 95 % held the truth in 74 % of studies of 4 skewed pictures. Here
every draw is studentised (bootstrap-t, Hall 1988):

    R = sum v / sum b,    e_i = v_i - R b_i,    s = sqrt(N / (N - 1) sum e_i^2) / sum b
    interval = [R - s t_high, R - s t_low],    t = (R* - R) / s* in the draws

b is 1 for a mean. A share of what there was before, such as 1 - p_k / p_0, is a ratio of means
with v = p_0 - p_k and b = p_0: the mean of the pictures' own ratios is ruled by pictures whose p_0
is next to nothing, and a mean of their logarithms by those whose p_k is, which silencing makes.

Resamples of one and the same value have no s*: then, and for yes and no (0 and 1, and differences
of them), the interval is Gaffke's (2005; Learned-Miller & Thomas 2020) if the quantity has a known
range, at whose end it puts one more picture; of zeros and ones this is the interval of Clopper &
Pearson. Without a known range such an interval is open, or there is none (NaN). What no picture has
shown, a rare collapse among 24, none of these intervals knows of.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmlens.values.arguments import count, number
from mmlens.values.errors import ArgumentError

LEVEL, DRAWS = 0.95, 2000
MOST = 100_000
"""Draws beyond which a run takes memory and no number changes."""
ANY = (-np.inf, np.inf)


def intervals(
    values: Any,
    bases: Any = None,
    ranges: Any = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Mean (or ratio of means), low and high of each quantity: Float[quantity, 3].

    Args:
        values: Float[picture, quantity]; NaN where a picture has no such value.
        bases: Float[picture, quantity]; what the values are parts of, by default 1.
        ranges: Float[quantity, 2]; between which values each quantity lies, by default any.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    tail = (1 - number(level, "level", above=0, most=1)) / 2
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not len(values):
        raise ArgumentError(f"Values of shape {values.shape} are no [picture, quantity].")
    bases = np.ones_like(values) if bases is None else np.asarray(bases, dtype=float)
    within = np.asarray([ANY] * values.shape[1] if ranges is None else ranges, dtype=float)
    there = np.isfinite(values) & np.isfinite(bases)
    found = np.full((values.shape[1], 3), np.nan)
    patterns, group = np.unique(there, axis=1, return_inverse=True)
    for i, rows in enumerate(patterns.T):
        own = group.reshape(-1) == i  # the quantities of these pictures
        if rows.any():
            parts = values[rows][:, own], bases[rows][:, own], within[own]
            found[own] = _intervals(*parts, tail, draws, seed)
    return found


def _intervals(
    values: np.ndarray, bases: np.ndarray, within: np.ndarray, tail: float, draws: int, seed: int
) -> np.ndarray:
    """The intervals of quantities that all of these pictures have."""
    mean, low, high = _studentised(values, bases, tail, draws, seed)
    out = np.stack([mean, low, high], 1)
    whole = (bases == 1).all(0) & np.isfinite(within).all(1)
    whole &= ((values >= within[:, 0]) & (values <= within[:, 1])).all(0)
    counts = ((values == within[:, 0]) | (values == within[:, 1]) | (values == 0)).all(0)
    open_ = whole & (counts | ~np.isfinite(low) | ~np.isfinite(high))
    if open_.any():
        out[open_, 1:] = _bounded(values[:, open_], within[open_], tail, draws, seed)
    inside = np.clip(out[:, 1:], within[:, :1], within[:, 1:])
    out[:, 1:] = np.where(whole[:, None], inside, out[:, 1:])
    return out


def _studentised(
    values: np.ndarray, bases: np.ndarray, tail: float, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high; infinite where a tail of the draws has no spread, NaN where none has."""
    n, rng = len(values), np.random.default_rng(seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(0) / bases.sum(0)
        rest = values - mean * bases
        flat = np.ptp(rest, axis=0) <= 1e-12 * np.abs(values).max(0, initial=0)
        if n < 2 or flat.all():
            return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
        spread = np.sqrt((rest**2).sum(0) * n / (n - 1)) / bases.sum(0)
        times = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
        base = times @ bases
        moved = times @ rest / base
        squares = times @ rest**2 - 2 * moved * (times @ (rest * bases))
        squares += moved**2 * (times @ bases**2)
        own = np.sqrt(np.maximum(squares, 0) * n / (n - 1)) / base
        # the square of what is left of equal values is rounding of some 1e-16 of their own squares
        t = np.where(own > 1e-6 * spread, moved / own, np.sign(moved) * np.inf)
        t = np.where(np.isnan(t), 0.0, t)
        lower = np.quantile(t, tail, axis=0, method="lower")
        upper = np.quantile(t, 1 - tail, axis=0, method="higher")
        low, high = mean - spread * upper, mean - spread * lower
    return mean, np.where(flat, np.nan, low), np.where(flat, np.nan, high)


def _bounded(
    values: np.ndarray, within: np.ndarray, tail: float, draws: int, seed: int
) -> np.ndarray:
    """Gaffke's interval: pictures weighed by a flat Dirichlet, one more at the range's end."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(values) + 1), size=draws)
    own, more = drawn[:, :-1] @ values, drawn[:, -1:]
    low = np.quantile(own + more * within[:, 0], tail, axis=0)
    high = np.quantile(own + more * within[:, 1], 1 - tail, axis=0)
    return np.stack([low, high], 1)
