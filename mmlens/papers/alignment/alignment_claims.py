"""The paper's claims, each judged from one table.

I1 cones     picture and words lie in cones of their own
I2 layers    the cones come nearer through the layers
I3 skips     in later layers the picture's positions can do without the MLPs
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.alignment.questions import cosines, skips
from mmlens.papers.alignment.questions.cosines import BETWEEN, PICTURE, WORDS
from mmlens.papers.alignment.questions.skips import EARLIER, LATER, OF_WORDS
from mmlens.papers.bootstrap import summarise
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest, lost
from mmlens.papers.interval_plots import strips
from mmlens.papers.study_folder import above, below, by_arm, together, told_interval
from mmlens.papers.study_report import Part
from mmlens.papers.tables import used

KEPT = 0.1
"""What counts as little: less than a tenth of the probability."""
CLAIMS = {
    "I1": "Picture and words lie in cones of their own",
    "I2": "They come nearer to each other through the layers",
    "I3": "In later layers the picture's positions can do without the MLPs",
}
TITLES = {
    "I1": "Do picture and words lie in cones of their own?",
    "I2": "Do they come nearer through the layers?",
    "I3": "Can the MLPs pass the picture by?",
}
HOW = {
    "I1": "The mean cosine over all pairs of positions of the stream after each layer, between"
    " picture and words and within each, averaged over the layers.",
    "I2": "The mean cosine between picture and words, in the last third of the layers and in the"
    " first.",
    "I3": "What the MLPs write at the picture's positions is set to 0 in one half of the layers;"
    " for comparison, at the positions of words.",
}
RULES = {
    "I1": "it holds if the intervals of (picture - picture) and (words - words), each less (picture"
    " - words), lie above 0; it fails if one lies below.",
    "I2": "it holds if the interval of (last third - first third) lies above 0, and fails if it"
    " lies below.",
    "I3": f"it holds if the interval of the share lost in the later half lies below {KEPT}, and"
    " fails if it lies above.",
}


def judged(key: str, tables: dict[str, pd.DataFrame], **how: Any) -> Part:
    """The part of one claim.

    Args:
        tables: of `mean_cosines` and `skipped_mlps`, by name.
        how: draws and seed of the bootstrap.
    """
    if key == "I3":
        return _skips(tables["skipped_mlps"], **how)
    return (_cones if key == "I1" else _layers)(tables["mean_cosines"], **how)


def _cones(table: pd.DataFrame, **how: Any) -> Part:
    """I1."""
    mean: Any = _rows(table).groupby(["sample", "pair"])["cosine"].mean().unstack("pair")
    parts = {pair: mean[pair] for pair in (BETWEEN, PICTURE, WORDS)}
    gaps = {f"({pair}) - ({BETWEEN})": mean[pair] - mean[BETWEEN] for pair in (PICTURE, WORDS)}
    found = _summarised({**parts, **gaps}, **how)
    says = (
        f"Mean cosines: {BETWEEN} {told_interval(found[BETWEEN])}, {PICTURE}"
        f" {told_interval(found[PICTURE])}, {WORDS} {told_interval(found[WORDS])}, in"
        f" {found[BETWEEN]['n']} pictures."
    )
    rows = [Row(name, told_interval(found[name])) for name in gaps]
    each: Any = cosines.summary(table, **how)
    drawn = each.assign(panel=each["pair"], arm=each["layer"].map(lambda at: f"after layer {at}"))
    arms = {str(arm): str(arm) for arm in dict.fromkeys(drawn["arm"])}
    draw = partial(strips, drawn, arms, "Mean cosine of positions", "with 95 % intervals")
    holds = together(*(above(found[name]) for name in gaps))
    return _part("I1", says, holds, rows=rows, summary=each, draw=draw)


def _layers(table: pd.DataFrame, **how: Any) -> Part:
    """I2."""
    rows = _rows(table)
    n = int(rows["layer"].max()) + 1
    own = rows[rows["pair"] == BETWEEN]
    third = own["layer"].map(lambda at: min(2, 3 * int(at) // n))
    mean: Any = own.assign(third=third).groupby(["sample", "third"])["cosine"].mean()
    mean = mean.unstack("third").reindex(columns=range(3))
    names = ("first third", "last third", "last third - first third")
    found = _summarised(dict(zip(names, (mean[0], mean[2], mean[2] - mean[0]), strict=True)), **how)
    first, last, gap = (found[name] for name in names)
    says = (
        f"The cosine between picture and words is {told_interval(last)} in the last third of the"
        f" layers and {told_interval(first)} in the first: a difference of {told_interval(gap)}, in"
        f" {gap['n']} pictures."
    )
    told = [Row(name, told_interval(found[name])) for name in names]
    return _part("I2", says, above(gap), rows=told)


def _skips(table: pd.DataFrame, **how: Any) -> Part:
    """I3."""
    found: Any = skips.summary(table, **how)
    rows = by_arm(found)
    late, early = rows[LATER], rows[EARLIER]
    says = (
        f"Without the MLPs of the later half at the picture's positions {told_interval(late)} of"
        f" the noun's probability are lost, without those of the earlier half"
        f" {told_interval(early)}, in {late['n']} pictures."
    )
    told = [Row(f"lost, {arm}", told_interval(row)) for arm, row in rows.items()]
    told[0] = Row(told[0].what, told[0].here, "little", "abstract: later layers, several tasks")
    shown = found.assign(panel="lost")
    arms = {arm: arm for arm in (LATER, EARLIER, OF_WORDS)}
    draw = partial(strips, shown, arms, "Lost of the noun's probability without MLPs at",
                   "with 95 % intervals")  # fmt: skip
    return _part("I3", says, below(late, KEPT), rows=told, summary=found, draw=draw)


def contest(table: pd.DataFrame) -> Contest:
    """The MLPs of the later half passed by, at the picture and at words.

    Args:
        table: of `skipped_mlps`.
    """
    return Contest(
        "What do later MLPs do at the picture's positions?",
        "the share of the noun's probability that is lost without them",
        lost(used(table, "arm", "before", "probability")),
        {LATER: OF_WORDS},
        better="less",
        control="the same layers, at words",
    )


def _rows(table: pd.DataFrame) -> Any:
    rows = used(table, *cosines.COLUMNS)
    return rows.assign(cosine=rows["cosine"].astype(float), layer=rows["layer"].astype(int))


def _summarised(series: dict[str, Any], **how: Any) -> dict[str, dict[str, Any]]:
    """Mean and interval of each of these numbers per picture, by name."""
    long = pd.concat([
        values.rename("value").rename_axis("sample").reset_index().assign(of=name)
        for name, values in series.items()
    ])  # fmt: skip
    found = summarise(long.dropna(subset=["value"]), ["of"], **how)
    return {str(row["of"]): {str(k): v for k, v in row.items()}
            for row in found.to_dict("records")}  # fmt: skip


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], HOW[key], says, verdict, RULES[key], **more)
