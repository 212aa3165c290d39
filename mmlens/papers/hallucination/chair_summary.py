"""CHAIR of arms, paired over pictures, and whether confidence tells what is there.

    CHAIR-s     captions with a mention of what is not there / captions
    CHAIR-i     mentions of what is not there / mentions          a ratio of sums over pictures
    mentions    of a caption
    recall      the share of a picture's things that its caption names
    AUROC       of internal confidence: mentions of what is there against those of what is not

Silence hallucinates nothing, so CHAIR is read with mentions and recall. An arm "X - plain" is the
difference picture by picture. That of CHAIR-i is of two ratios, R_1 - R_2, with the interval of
its linear part,

    e_i = (v_1i - R_1 b_1i) / mean b_1 - (v_2i - R_2 b_2i) / mean b_2
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.hallucination.told_apart import apart
from mmlens.papers.tables import ExperimentError, finished, used
from mmlens.tally.intervals import intervals

PLAIN = "plain"
RANGES = {"CHAIR-s": (0.0, 1.0), "CHAIR-i": (0.0, 1.0), "recall": (0.0, 1.0)}


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """By arm: experiment, arm, metric, mean, low, high, n, skipped, options.

    Args:
        table: of `said_things`, with a column `arm` where there are several; the arm "plain" is
            what others are compared with.
    """
    table = table if "arm" in table.columns else table.assign(arm=PLAIN)
    rows = used(table, "arm", "caption", "things", "recalled")
    parts = []
    each: Any = per_picture(rows)
    others = [arm for arm in dict.fromkeys(each["arm"]) if arm != PLAIN]
    pairs = [(arm, PLAIN) for arm in others] if len(others) < each["arm"].nunique() else []
    keys = ["arm", "metric"]
    plain: Any = each.melt(["sample", "arm"], ["CHAIR-s", "mentions", "recall"], "metric", "value")
    long = with_differences(plain[["sample", "arm", "metric", "value"]], *pairs)
    parts.append(summarise(long, keys, ranges=RANGES, draws=draws, seed=seed))
    if each["mentions"].sum():
        named: Any = each.rename(columns={"wrong": "value"}).assign(base=each["mentions"])
        named = named.assign(metric="CHAIR-i")[["sample", *keys, "value", "base"]]
        parts.append(summarise(named, keys, ranges=RANGES, draws=draws, seed=seed))
        parts += [_between(each, one, other, draws, seed) for one, other in pairs]
    parts += [_confidence(rows, arm, draws, seed) for arm in dict.fromkeys(rows["arm"])]
    found = pd.concat([part for part in parts if len(part)], ignore_index=True)
    found = _inside(found)
    order = {arm: at for at, arm in enumerate(dict.fromkeys(each["arm"]))}
    found = found.sort_values(
        "arm", key=lambda arms: arms.map(order).fillna(len(order)), kind="stable",
        ignore_index=True,
    )  # fmt: skip
    return finished(found, "hallucination", table, draws=draws, seed=seed)


def _inside(found: pd.DataFrame) -> pd.DataFrame:
    """No bound beyond what a metric can be: an open side ends where the metric does."""
    gap = found["arm"].str.contains(" - ", regex=False)
    share, number = found["metric"] != "mentions", found["metric"].eq("mentions")
    least = np.where(gap, np.where(share, -1.0, -np.inf), 0.0)
    most = np.where(number, np.inf, 1.0)
    return found.assign(low=found["low"].clip(lower=least), high=found["high"].clip(upper=most))


def per_picture(rows: pd.DataFrame) -> pd.DataFrame:
    """sample, arm, mentions, wrong (of them), CHAIR-s, recall: a row a caption."""
    named = rows["thing"].notna()
    wrong = named & ~rows["there"].eq(True)
    counted = rows.assign(named=named.astype(float), wrong=wrong.astype(float))
    grouped = counted.groupby(["sample", "arm"], sort=False)
    out: Any = grouped.agg(
        mentions=("named", "sum"), wrong=("wrong", "sum"), things=("things", "first"),
        recalled=("recalled", "first"),
    ).reset_index()  # fmt: skip
    shares = out["recalled"].astype(float) / out["things"].astype(float)
    return out.assign(**{"CHAIR-s": (out["wrong"] > 0).astype(float), "recall": shares})


def _between(each: Any, one: str, other: str, draws: int, seed: int) -> pd.DataFrame:
    """CHAIR-i of one arm minus that of another, over the pictures that both have."""
    two = [each[each["arm"] == arm].set_index("sample")[["wrong", "mentions"]]
           for arm in (one, other)]  # fmt: skip
    both = two[0].join(two[1].add_suffix("_other"), how="inner")
    if not len(both) or not both["mentions"].sum() or not both["mentions_other"].sum():
        return pd.DataFrame()
    values, rates = np.zeros(len(both)), []
    for sign, end in ((1, ""), (-1, "_other")):
        wrong, named = (both[f"{name}{end}"].to_numpy(float) for name in ("wrong", "mentions"))
        rates.append(wrong.sum() / named.sum())
        values += sign * (wrong - rates[-1] * named) / named.mean()
    gap = rates[0] - rates[1]
    low, high = intervals((values + gap)[:, None], draws=draws, seed=seed)[0, 1:]
    return pd.DataFrame([{"arm": f"{one} - {other}", "metric": "CHAIR-i", "mean": gap,
                          "low": low, "high": high, "n": len(both)}])  # fmt: skip


def _confidence(rows: Any, arm: str, draws: int, seed: int) -> pd.DataFrame:
    """AUROC of internal confidence, each thing of a picture counted once; n: the rarer pictures."""
    here = rows[(rows["arm"] == arm) & rows["thing"].notna() & rows["confidence"].notna()]
    here = here.drop_duplicates(["sample", "thing"])
    if not len(here):
        return pd.DataFrame()
    is_there = here["there"].eq(True)
    kinds = [here[is_there], here[~is_there]]
    found = apart(*(kind["confidence"] for kind in kinds), *(kind["sample"] for kind in kinds),
                  draws=draws, seed=seed)  # fmt: skip
    return pd.DataFrame([{"arm": arm, "metric": "AUROC", "mean": found.auroc, "low": found.low,
                          "high": found.high, "n": min(found.n, found.n_others)}])  # fmt: skip


def arms_of(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of several arms as one.

    Raises:
        ExperimentError: there is none.
    """
    if not tables:
        raise ExperimentError("There is no arm to summarise: give a table for one at least.")
    return pd.concat([one.assign(arm=arm) for arm, one in tables.items()], ignore_index=True)
