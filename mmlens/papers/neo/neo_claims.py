"""The paper's claims, each judged from the table of one tool, and from nothing else.

N1 patches     a thing is lost with its own patches
N2 words       these say its name, and more so in later layers
N3 reading     the answer reads it at these patches
N4 last row    it is not gathered in the last row of patches first
N5 layers      it is read behind the early layers
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest, lost
from mmlens.papers.interval_plots import strips
from mmlens.papers.neo.questions import object_tokens, patch_words, windows
from mmlens.papers.study_folder import above, together, told_interval
from mmlens.papers.study_report import Part
from mmlens.papers.tables import used

OWN, RANDOM, GATHERED = "object + ring -> last", "random -> last", "patches -> last row"
LATE, EARLY = "mid-late", "early"
NAMED = (
    ("object", "the thing's patches"),
    ("object + ring", "its patches and those around them"),
    ("register", "patches of a large norm (registers)"),
    (OWN, "the last position off these patches"),
    (GATHERED, "the last row off all other patches"),
)
"""Arms, and what they are called in a contest."""
TITLES = {
    "N1": "Is a thing lost with its own patches?",
    "N2": "Do its patches say its name?",
    "N3": "Does the answer read it there?",
    "N4": "Is it gathered in the last row of patches first?",
    "N5": "In which layers is it read?",
}
CLAIMS = {
    "N1": "A thing is kept at its own patches",
    "N2": "Patches of a thing say its name, more so in later layers",
    "N3": "The last position reads the thing at its own patches",
    "N4": "The thing is not gathered in the last row of patches first",
    "N5": "It is read behind the early layers",
}
HOW = {
    "N1": "Positions of the picture are replaced by the mean of bare ground of the same picture,"
    " before the first layer: the thing's patches and those around them, positions of a large norm"
    " (registers), and as many patches of bare ground at random.",
    "N2": "Every patch is read by the logit lens after every layer. Counted is the share of the"
    " thing's patches, and of bare ground, whose most probable token is the noun's.",
    "N3": "The last position is kept from attending to the thing's patches and those around them,"
    " in all layers, or to as many patches of bare ground.",
    "N4": "The last row of patches is kept from attending to all other patches, in all layers.",
    "N5": "Attention of the last position to the thing's patches is cut in windows of a third of"
    " the layers.",
}
RULES = {
    "N1": "it holds if the interval of (thing and around - random) of the share lost lies above 0,"
    " and fails if it lies below.",
    "N2": "it holds if the intervals of (last third of the layers - first third) and of (thing -"
    " bare ground, in the last third) lie above 0; it fails if one lies below.",
    "N3": "it holds if the interval of (thing and around - random) of the share lost lies above 0,"
    " and fails if it lies below.",
    "N4": "it holds if less is lost than by cutting the last position off the thing: if the"
    " interval of that difference lies above 0; it fails if it lies below.",
    "N5": f"it holds if the interval of ({LATE} - {EARLY}) of the share lost lies above 0, and"
    " fails if it lies below.",
}


def unmeasured(key: str, why: str) -> Part:
    """An experiment that could not be asked."""
    return _part(key, f"Not measured: {why}", None)


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], HOW[key], says, verdict, RULES[key], **more)


def _row(table: Any, **at: Any) -> dict[str, Any]:
    """The one row of a summary at these keys; NaN, of no picture, where there is none."""
    for name, value in at.items():
        table = table[table[name] == value]
    if not len(table):
        return {**at, "mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    return {str(name): value for name, value in table.iloc[0].items()}


def contests(tables: dict[str, pd.DataFrame]) -> list[Contest]:
    """A thing's patches, replaced or not attended to, against as many of bare ground.

    Args:
        tables: of the tools, by name; one without an answer is left out.
    """
    asked = "Where in the picture is a thing, for the language model?"
    replaced, cut = tables["token_ablations"], tables["window_effects"]
    found = []
    if _answers(replaced):
        rows = lost(used(replaced, "arm", "before", "probability"))
        what = "the share of the noun's probability that is lost with the patches"
        found.append(_contest(asked, what, rows, NAMED[:3], "random"))
    if _answers(cut):
        rows = used(cut, "arm", "layers", "before", "probability")
        rows = lost(rows[rows["layers"] == "all"])
        what = "the share of the noun's probability that is lost where attention is cut"
        found.append(_contest(asked, what, rows, NAMED[3:], RANDOM))
    return found


def _answers(table: Any) -> bool:
    return bool((table["skipped"] == "").any())


def _contest(asked: str, what: str, rows: Any, arms: Sequence[Any], control: str) -> Contest:
    """A contest of the arms that there are (a picture may have no registers)."""
    there = set(rows["arm"])
    controls = {said: control for arm, said in arms if {arm, control} <= there}
    rows = rows.assign(arm=rows["arm"].replace(dict(NAMED)))
    return Contest(asked, what, rows, controls, control="as many patches of bare ground")


def _patches(table: pd.DataFrame, **how: Any) -> Part:
    """N1."""
    found: Any = object_tokens.summary(table, **how)
    own, chance = "object + ring", "random"
    gap = _row(found, arm=f"{own} - {chance}", metric="lost")
    lost, other = (_row(found, arm=arm, metric="lost") for arm in (own, chance))
    says = (
        f"With the thing's patches and those around them {told_interval(lost)} of the noun's"
        f" probability are lost, with as many of bare ground {told_interval(other)}: a difference"
        f" of {told_interval(gap)}, in {gap['n']} pictures."
    )
    said = {arm: _row(found, arm=arm, metric="said") for arm in (own, "register", chance)}
    rows = [Row(f"noun still said, without: {arm}", told_interval(row),
                *(("falls by over 70 %", "abstract: answers, LLaVA") if arm == own else ()))
            for arm, row in said.items() if row["n"]]  # fmt: skip
    arms = ["object", own, "register", chance]
    drawn = found[found["metric"].isin(["lost", "said"])].rename(columns={"metric": "panel"})
    draw = _drawn(drawn, arms, "What is lost without", "shares, with 95 % intervals")
    return _part("N1", says, above(gap), rows=rows, summary=found, draw=draw)


def _words(table: pd.DataFrame, **how: Any) -> Part:
    """N2."""
    rows = used(table, "layer", "arm", "share")
    n = int(rows["layer"].max()) + 1
    third = rows["layer"].map(lambda at: min(2, 3 * int(at) // n))
    means: Any = rows.assign(third=third, share=rows["share"].astype(float))
    means = means.groupby(["sample", "arm", "third"])["share"].mean().unstack("third")
    means = means.reindex(columns=range(3)).reset_index()
    own, bare = (means[means["arm"] == arm].set_index("sample") for arm in ("object", "background"))
    parts = {"thing, last third": own[2], "thing, first third": own[0],
             "bare ground, last third": bare[2], "last third - first third": own[2] - own[0],
             "thing - bare ground": own[2] - bare[2]}  # fmt: skip
    long = pd.concat([
        values.rename("value").rename_axis("sample").reset_index().assign(arm=arm, metric="share")
        for arm, values in parts.items()
    ]).dropna(subset=["value"])  # fmt: skip
    found = summarise(long, ["arm", "metric"], **how)
    later, where = (_row(found, arm=arm) for arm in list(parts)[3:])
    says = (
        f"In the last third of the layers {told_interval(_row(found, arm='thing, last third'))} of"
        f" the thing's patches say its name, {told_interval(later)} more than in the first third"
        f" and {told_interval(where)} more than bare ground."
    )
    each: Any = patch_words.summary(table, **how)
    best = each[each["arm"] == "object"].sort_values("mean", ascending=False).iloc[0].to_dict()
    told = [Row(f"the thing's patches after layer {best['layer']:.0f}, where most do",
                told_interval(best))]  # fmt: skip
    holds = together(above(later), above(where))
    return _part("N2", says, holds, rows=told, summary=pd.concat([found, each]))


def _windows(key: str, table: pd.DataFrame, **how: Any) -> Part:
    """N3, N4 and N5."""
    found: Any = windows.summary(table, **how)
    rows = used(table, "arm", "layers", "before", "probability")
    before, after = rows["before"].astype(float), rows["probability"].astype(float)
    at = rows["arm"] + " @ " + rows["layers"]
    long = pd.DataFrame({"sample": rows["sample"], "arm": at, "metric": "lost",
                         "value": before - after, "base": before})  # fmt: skip
    pairs = {"N3": (f"{OWN} @ all", f"{RANDOM} @ all"),
             "N4": (f"{OWN} @ all", f"{GATHERED} @ all"),
             "N5": (f"{OWN} @ {LATE}", f"{OWN} @ {EARLY}")}  # fmt: skip
    both = summarise(with_differences(long, pairs[key]), ["arm", "metric"], **how)
    first, second = (_row(both, arm=arm) for arm in pairs[key])
    gap = _row(both, arm=" - ".join(pairs[key]))
    what = {"N3": ("cut off the thing's patches", "off as many of bare ground"),
            "N4": ("cut off the thing's patches", "where the last row of patches is cut off"),
            "N5": (f"cut in the window {LATE!r}", f"in the window {EARLY!r}")}[key]  # fmt: skip
    says = (
        f"The last position {what[0]}: {told_interval(first)} of the noun's probability are lost;"
        f" {what[1]} {told_interval(second)}. The difference is {told_interval(gap)}, in {gap['n']}"
        " pictures."
    )
    told = [
        Row(f"noun still said, cut: {pair.replace(' @ ', ', ')}", told_interval(row))
        for pair in pairs[key]
        for arm, layers in [pair.split(" @ ")]
        for row in [_row(found, arm=arm, layers=layers, metric="said")]
    ]
    drawn = found[found["metric"] == "lost"].rename(columns={"layers": "panel"})
    arms = [OWN, "others -> last", RANDOM, GATHERED]
    draw = _drawn(drawn, arms, "Lost where attention is cut", "share of the noun's probability")
    more = {"draw": draw, "summary": found} if key == "N3" else {"summary": both}
    return _part(key, says, above(gap), rows=told, **more)


def _drawn(rows: Any, arms: list[str], title: str, subtitle: str) -> Callable[[], Any]:
    shown = {arm: arm for arm in arms if arm in set(rows["arm"])}
    return partial(strips, rows, shown, title, subtitle)


JUDGES: dict[str, tuple[str, Callable[..., Part]]] = {
    "N1": ("token_ablations", _patches),
    "N2": ("word_shares", _words),
    **{key: ("window_effects", partial(_windows, key)) for key in ("N3", "N4", "N5")},
}
"""By claim, the tool whose table it is judged from, and how."""
