"""Tables of means over pictures, and of ratios of such means, with intervals (`tally.intervals`).

Pictures are drawn, never rows; quantities of the same pictures share the draws, and a difference of
two arms is taken picture by picture (`differences`), so that its interval is that of the paired
comparison. A share of what there was before, such as 1 - p_k / p_0, is a ratio of means with values
p_0 - p_k and bases p_0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmlens.papers.tables import ExperimentError
from mmlens.tally.intervals import ANY, DRAWS, intervals
from mmlens.tally.intervals import MOST as MOST

LEAST = 8
"""Of fewer pictures no claim is decided: intervals there are right on average, but seldom short."""

_SHARES = (
    ("probability", "caption unchanged", "word overlap F1", "world score", "IoU", "ceiling")
    + ("share", "units shared", "interpretable", "best text", "IoU of units", "IoU of map")
    + ("planted", "said", "fits", "one fits")
)  # fmt: skip
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SHARES, (0.0, 1.0)),
    "CLIPScore": (0.0, 100.0),
    "cosine": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
}
"""Between which values a metric lies, where that is known."""


def summarise(
    rows: pd.DataFrame,
    keys: Sequence[str],
    *,
    ranges: Mapping[str, tuple[float, float]] = RANGES,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per combination of the keys: keys, mean, low, high, n (pictures with a value).

    Args:
        rows: sample, the keys, value, and base where it is a ratio of means; several values of one
            picture are averaged first.
        ranges: by the key "metric", between which values it lies.
    """
    if not len(rows) or not np.isfinite(rows["value"].to_numpy(dtype=float)).any():
        raise ExperimentError("There is no value to summarise: every one of them is missing.")
    columns = [name for name in ("value", "base") if name in rows.columns]
    wide: Any = rows.pivot_table(
        index="sample", columns=list(keys), values=columns, aggfunc="mean", sort=False
    )
    values = wide["value"]
    bases = wide["base"].reindex(columns=values.columns).to_numpy() if "base" in columns else None
    names: Any = values.columns.to_frame(index=False).set_axis(list(keys), axis=1)
    within = [_range(row, ranges) for row in names.to_dict("records")]
    found = intervals(values.to_numpy(dtype=float), bases, within, draws=draws, seed=seed)
    table = names.assign(mean=found[:, 0], low=found[:, 1], high=found[:, 2])
    return table.assign(n=np.isfinite(values.to_numpy(dtype=float)).sum(0))


def _range(row: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> Any:
    low, high = ranges.get(str(row.get("metric")), ANY)
    return (low - high, high - low) if " - " in str(row.get("arm")) else (low, high)


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
