"""Contests of methods: each against its own control, picture by picture."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from judging import all_judged

from mmlens.papers.contests import COLUMNS, Contest, contest_table, judged
from mmlens.papers.tables import ExperimentError

N = 30


def rows(**means):
    """N pictures whose values differ much from one to the next, and little from arm to arm."""
    draw = np.random.default_rng(0)
    level = draw.uniform(0.2, 0.8, N)
    return pd.DataFrame([
        {"sample": str(i), "arm": arm, "value": level[i] + mean + draw.normal(0, 0.01)}
        for arm, mean in means.items()
        for i in range(N)
    ])  # fmt: skip


def contest(better="more", **more) -> Contest:
    table = rows(chance=0.0, good=0.05, bad=-0.05, same=0.0)
    controls: dict[str, str] = dict.fromkeys(("good", "bad", "same"), "chance")
    return Contest("Where?", "of the map on the thing", table, controls, better, **more)


def test_a_difference_is_taken_picture_by_picture():
    """Means whose own intervals overlap widely are told apart by the paired difference."""
    found = judged(contest(), draws=300).set_index("method")
    assert list(found["beats"]) == [True, False, None]
    good, control = found.loc["good"], rows(chance=0.0)["value"]
    assert good["low"] < control.mean() < good["high"]
    assert good["gap"] == pytest.approx(0.05, abs=0.01)
    assert good["control mean"] == pytest.approx(control.mean(), abs=0.01)
    assert good["n"] == N


def test_less_may_be_better():
    found = judged(contest("less"), draws=300).set_index("method")
    assert list(found["beats"]) == [False, True, None]


def test_a_ratio_of_means_is_one():
    """Shares of bases that differ: the pictures with large bases count for more."""
    table = pd.DataFrame([
        {"sample": str(i), "arm": arm, "value": share * base, "base": base}
        for i, base in enumerate([0.1] * 9 + [1.0])
        for arm, share in (("others", 0.0), ("first", 0.8 if base == 1 else 0.1))
    ])  # fmt: skip
    found = judged(Contest("Which?", "lost", table, {"first": "others"}), draws=300).iloc[0]
    assert found["mean"] == pytest.approx((0.09 + 0.8) / 1.9)


def test_a_summary_of_a_study_is_taken_as_it_is():
    """A difference whose interval the study has computed by itself (CHAIR-i, of other mentions)."""
    told = pd.DataFrame(
        [
            ("VCD", 0.2, 0.1, 0.3, 20),
            ("plain", 0.4, 0.3, 0.5, 20),
            ("VCD - plain", -0.2, -0.3, -0.1, 20),
        ],
        columns=["arm", "mean", "low", "high", "n"],
    )
    found = judged(Contest("?", "CHAIR-i", told, {"VCD": "plain"}, "less")).iloc[0]
    assert (found["mean"], found["control mean"], found["gap low"]) == (0.2, 0.4, -0.3)
    assert found["beats"] is True


def test_few_pictures_decide_nothing():
    table = rows(chance=0.0, good=0.5)
    few: Any = table[table["sample"].astype(int) < 7]
    assert judged(Contest("?", "x", few, {"good": "chance"}), draws=300)["beats"].tolist() == [None]


def test_tables_stand_below_each_other_with_their_costs():
    found = all_judged([contest(passes={"good": 2.0}), contest("less")], draws=300)
    assert tuple(found.columns) == COLUMNS
    assert len(found) == 6
    lines = contest_table(found)
    assert [line[4] for line in lines[1:4]] == ["ahead", "behind", "not told apart"]
    assert [line[-1] for line in lines[1:4]] == ["2", "", ""]


def test_an_arm_that_is_not_there_is_named():
    with pytest.raises(ExperimentError, match="no rows of 'rise'; it has those of bad, chance"):
        judged(Contest("?", "x", contest().rows, {"rise": "chance"}))
    with pytest.raises(ExperimentError, match='better="most"'):
        judged(contest("most"))


def test_arms_that_no_picture_has_both_of_are_not_told_apart():
    table = rows(first=0.1, chance=0.0)
    table.loc[table["arm"] == "chance", "sample"] += " of another folder"
    found = judged(Contest("Where?", "it", table, {"first": "chance"}), draws=50).iloc[0]
    assert found["n"] == 0 and found["beats"] is None and np.isnan(found["gap"])
