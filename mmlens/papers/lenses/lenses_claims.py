"""What the papers claim of their lenses, each judged from the one table.

G1 late       the logit lens names the thing in late layers
B1 tuned      the tuned lens is ahead of it in early layers
J1 jacobian   the Jacobian lens is ahead of it in the middle
P1 scope      the patchscope is ahead of it in early layers
C1 texts      neighbours in texts are ahead of it in early layers
C2 words      and ahead of the words that are nearest to the soft prompt
A1 heads      the heads of a layer say more than nothing
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import differences, summarise
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.lenses.questions.words_at_patches import GROUPS, LENSES, RANGES, K
from mmlens.papers.study_folder import above, told_interval
from mmlens.papers.study_report import Part

SOFT, EARLY, MIDDLE, LATE = GROUPS


@dataclass(frozen=True)
class LensClaim:
    """A lens in a third of the layers, against another lens or against pictures of other things.

    Attributes:
        other: the lens that it should be ahead of; empty: other pictures.
        group, other_group: the third of the layers of each.
        measured: what the paper itself measures.
    """

    claim: str
    title: str
    source: str
    measured: str
    lens: str
    group: str
    other: str = ""
    other_group: str = ""


CLAIMS = {
    "G1": LensClaim(
        "The logit lens names the thing at its patches in late layers",
        "Does the logit lens name the thing?", "nostalgebraist (2020), interpreting GPT",
        "It is a look at texts; Neo et al. (2025) count such patches.", "logit", LATE),
    "B1": LensClaim(
        "The tuned lens is ahead of the logit lens in early layers",
        "Is the tuned lens ahead early?", "Belrose et al. (2023), arXiv:2303.08112",
        "The paper measures how well it predicts the model's own next word in texts.",
        "tuned", EARLY, "logit", EARLY),
    "J1": LensClaim(
        "The Jacobian lens is ahead of the logit lens in the middle layers",
        "Is the Jacobian lens ahead in the middle?",
        "Gurnee et al. (2026), the Jacobian lens of TransformerLens 4",
        "It is made for texts; here the mean is over patches.",
        "jacobian", MIDDLE, "logit", MIDDLE),
    "P1": LensClaim(
        "The patchscope of the identity prompt is ahead of the logit lens in early layers",
        "Is the patchscope ahead early?", "Ghandeharioun et al. (2024), arXiv:2401.06102",
        "The paper measures the next word, attributes and entities in texts.",
        "identity", EARLY, "logit", EARLY),
    "C1": LensClaim(
        "Neighbours in texts are ahead of the logit lens in early layers",
        "Are neighbours in texts ahead early?", "LatentLens (McGill NLP 2026)",
        "The paper lets a model judge whether words describe a patch.",
        "neighbours", EARLY, "logit", EARLY),
    "C2": LensClaim(
        "They are ahead of the words that are nearest to the soft prompt",
        "Are they ahead of words at the soft prompt?", "LatentLens (McGill NLP 2026)",
        "Neighbours are those of the early layers, since the index holds what blocks put out.",
        "neighbours", EARLY, "nearest", SOFT),
    "A1": LensClaim(
        "The heads of a layer say more than nothing, through the attention lens",
        "Do heads name the thing?", "Sakarvadia et al. (2023), arXiv:2310.16270",
        "The paper reads single heads at the last position of texts; here their sum at patches, in"
        " the middle layers.", "heads", MIDDLE),
}  # fmt: skip
SOURCES = list(dict.fromkeys(one.source for one in CLAIMS.values()))
QUESTION = "What does a patch show, in a word?"
MEASURE = (
    "share of a thing's patches at which its word is among the {k} best, in the middle third of the"
    " layers (nearest_tokens: of the soft prompt)"
)


def judged(key: str, each: pd.DataFrame, **how: Any) -> Part:
    """The part of one claim.

    Args:
        each: what `points` returns.
        how: draws and seed of the bootstrap.
    """
    one = CLAIMS[key]
    there = set(zip(each["arm"], each["metric"], strict=True))
    needed = [(one.lens, one.group)] + [(one.other, one.other_group)] * bool(one.other)
    lacking = [pair for pair in needed if pair not in there]
    told = f"{one.source}. {one.measured}"
    if lacking:
        says = f"Not measured: {LENSES[lacking[0][0]]} was not asked ({lacking[0][1]})."
        return Part(key, one.title, told, says, Verdict(key, one.claim, None, says), _rule(one))
    rows = each[["sample", "arm", "metric", "value"]]
    found = _of_groups(one, rows, **how)
    row = found[one.group]
    if one.other:
        mean = {lens: _mean(rows, lens, group, **how) for lens, group in needed}
        says = (
            f"{LENSES[one.lens]} names it at {_told(mean[one.lens])} points ({one.group}),"
            f" {LENSES[one.other]} at {_told(mean[one.other])} ({one.other_group}): a difference of"
            f" {_told(row)}, in {row['n']} pictures."
        )
    else:
        says = (
            f"{LENSES[one.lens]} names it at {_told(row)} points ({one.group}), in"
            f" {row['n']} pictures."
        )
    what = f"{LENSES[one.lens]}{f' less {LENSES[one.other]}' if one.other else ''}"
    each_third = [Row(f"{what}, {group}", f"{_told(here)} points")
                  for group, here in found.items()]  # fmt: skip
    table = pd.DataFrame([{"lens": what, "group": group, **here} for group, here in found.items()])
    return Part(key, one.title, told, says, Verdict(key, one.claim, above(row), says), _rule(one),
                rows=each_third, summary=table)  # fmt: skip


def every_lens(found: pd.DataFrame, left_out: Mapping[str, str], k: int = K) -> Part:
    """The table of all lenses.

    Args:
        found: of `words_at_patches.summary`. left_out: lenses that the model cannot take, and why.
        k: words that a lens reads of a patch.
    """
    cells = found.set_index(["arm", "metric"])
    groups = [group for group in GROUPS if group in set(found["metric"])]
    lines = [["lens", *groups]]
    for lens in (lens for lens in LENSES if lens in set(found["arm"])):
        here = [_told(dict(cells.loc[(lens, group)])) if (lens, group) in cells.index else ""
                for group in groups]  # fmt: skip
        lines.append([LENSES[lens], *here])
    shown = found.assign(panel=found["metric"])
    arms = {lens: LENSES[lens] for lens in LENSES if lens in set(found["arm"])}
    draw = partial(strips, shown, arms, "Patches that are named, beyond other pictures",
                   "in points, with 95 % intervals", panels=groups)  # fmt: skip
    notes = [f"{LENSES[lens]} is left out: {reason}" for lens, reason in left_out.items()]
    how = (
        f"Every lens reads the {k} best words of a thing's patches; from the share at which the"
        " thing's word is among them the share is taken at which the same word is read off patches"
        " of other things, in other pictures. Thirds of the layers; the soft prompt lies before"
        " them."
    )
    middle: Any = found[found["metric"] == MIDDLE]
    says = "The soft prompt alone was asked."
    if len(middle):
        best = middle.loc[middle["mean"].idxmax()]
        says = f"In the middle layers {LENSES[best['arm']]} names most: {best['mean']:.0f} points."
    return Part("lenses", "Which lens names the thing?", how, says, table=lines, notes=notes,
                summary=found, draw=draw, name="all lenses", numbered=False)  # fmt: skip


def contests(each: pd.DataFrame, passes: Mapping[str, float], k: int = K) -> list[Contest]:
    """The lenses, each against its own reading of pictures of other things."""
    there = set(each["arm"])
    lenses = {lens: MIDDLE if lens != "nearest" else SOFT for lens in LENSES if lens in there}
    rows, controls = [], {}
    for lens, group in lenses.items():
        here: Any = each[(each["arm"] == lens) & (each["metric"] == group)]
        if not len(here):
            continue
        name, control = LENSES[lens], f"{LENSES[lens]}, other pictures"
        controls[name] = control
        for arm, column in ((name, "own"), (control, "other")):
            rows.append(pd.DataFrame({"sample": here["sample"], "arm": arm,
                                      "value": here[column] / 100}))  # fmt: skip
    if not rows:
        return []
    costs = {LENSES[lens]: cost for lens, cost in passes.items() if LENSES[lens] in controls}
    return [Contest(QUESTION, MEASURE.format(k=k), pd.concat(rows, ignore_index=True), controls,
                    control="the same word, at other things", within=(0.0, 1.0), passes=costs)
            ]  # fmt: skip


def told_of_texts(each: pd.DataFrame, table: pd.DataFrame, texts: Sequence[str]) -> str:
    """How far the neighbours name things whose word stands in the texts, and how far the others.

    Args:
        table: of `lens_words`. texts: of the index.
    """
    nouns = table.drop_duplicates("sample").set_index("sample")["noun"]
    rows: Any = each[(each["arm"] == "neighbours") & (each["metric"] == EARLY)]
    words = set(re.findall(r"\w+", " ".join(texts).lower()))
    there = rows["sample"].map(nouns).isin(words)
    if there.all() or not there.any():
        return f"The texts have the word of {'every' if there.all() else 'no'} thing that is shown."
    return (
        f"The texts have the word of {there.sum()} of {len(rows)} things: at these the neighbours"
        f" are at {rows.loc[there, 'value'].mean():.0f} points (early), at the others at"
        f" {rows.loc[~there, 'value'].mean():.0f}."
    )


def _of_groups(one: LensClaim, rows: Any, **how: Any) -> dict[str, dict[str, Any]]:
    """By third of the layers, the points of the lens, or how far it is ahead of the other."""
    arm = one.lens
    if one.other:
        arm = f"{one.lens} - {one.other}"
        if one.other_group != one.group:  # another place of the other lens: one number alone
            other = rows[(rows["arm"] == one.other) & (rows["metric"] == one.other_group)]
            own = rows[(rows["arm"] == one.lens) & (rows["metric"] == one.group)]
            rows = pd.concat([own, other.assign(metric=one.group)])
        rows = differences(rows, one.lens, one.other)
    found: Any = summarise(rows[rows["arm"] == arm], ["arm", "metric"], ranges=RANGES, **how)
    return {str(row["metric"]): {str(name): value for name, value in row.items()}
            for row in found.to_dict("records")}  # fmt: skip


def _mean(rows: Any, lens: str, group: str, **how: Any) -> dict[str, Any]:
    here = rows[(rows["arm"] == lens) & (rows["metric"] == group)]
    return dict(summarise(here, ["arm", "metric"], ranges=RANGES, **how).iloc[0])


def _told(row: Mapping[str, Any]) -> str:
    return told_interval(row, 0)


def _rule(one: LensClaim) -> str:
    what = f"the points of {LENSES[one.lens]} ({one.group})"
    if one.other:
        place = f" ({one.other_group})" if one.other_group != one.group else ""
        what = f"the difference to {LENSES[one.other]}{place}, picture by picture ({one.group}),"
    return f"it holds if the interval of {what} lies above 0, and fails if it lies below."
