"""Means over pictures with their uncertainty: the bootstrap over pictures.

Efron (1979): of N pictures, N are drawn with replacement, many times; a draw is a vector of counts
w (multinomial), its mean of a quantity v is sum(w v) / sum(w), and the interval runs between the
percentiles of these means. Pictures are drawn, never rows, because what one picture's neurons do
is not independent. All quantities share the draws, so a difference of two arms, taken picture by
picture (`differences`), has the interval of the paired comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmlens.experiments.tables import ExperimentError

LEVEL, DRAWS = 0.95, 2000


def intervals(
    values: np.ndarray, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Mean, low and high of each quantity: Float[quantity, 3].

    Args:
        values: Float[picture, quantity]; NaN where a picture has no such value.
    """
    if values.ndim != 2 or not len(values):
        raise ExperimentError(f"Values of shape {values.shape} are no [picture, quantity].")
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    pictures = len(values)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=draws).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(0) / there.sum(0)
        drawn = (counts @ filled) / (counts @ there)
    low, high = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    some = there.any(0)
    if some.any():
        tails = ((1 - level) / 2, (1 + level) / 2)
        low[some], high[some] = np.nanquantile(drawn[:, some], tails, axis=0)
    return np.stack([mean, low, high], 1)


def summarise(
    rows: pd.DataFrame, keys: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """One row per combination of the keys: keys, mean, low, high, n (pictures with a value).

    Args:
        rows: sample, the keys, value; several values of one picture are averaged first.
    """
    wide = rows.pivot_table(
        index="sample", columns=list(keys), values="value", aggfunc="mean", sort=False
    )
    if wide.empty:
        raise ExperimentError("There is no value to summarise: every one of them is missing.")
    values = wide.to_numpy(dtype=float)
    found = intervals(values, draws=draws, seed=seed)
    names: Any = wide.columns.to_frame(index=False)
    names = names.set_axis(list(keys), axis=1)
    table = names.assign(mean=found[:, 0], low=found[:, 1], high=found[:, 2])
    return table.assign(n=np.isfinite(values).sum(0))


def differences(rows: Any, one: str, other: str) -> pd.DataFrame:
    """Arm `one` minus arm `other`, picture by picture: rows of an arm "one - other"."""
    keys = [column for column in rows.columns if column not in ("arm", "value")]
    means: list[Any] = [
        rows[rows["arm"] == arm].groupby(keys, sort=False)["value"].mean() for arm in (one, other)
    ]
    gap = (means[0] - means[1]).dropna().rename("value").reset_index()
    return gap.assign(arm=f"{one} - {other}")[list(rows.columns)]


def with_differences(rows: pd.DataFrame, *pairs: tuple[str, str]) -> pd.DataFrame:
    """The rows and, behind them, the differences of these pairs of arms."""
    return pd.concat([rows, *(differences(rows, *pair) for pair in pairs)], ignore_index=True)
