"""What is told of each experiment of the study, from its numbers.

Every sentence that judges follows from the numbers. A claim holds, fails, or is undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from mmlens.papers.claims import Row, Verdict
from mmlens.papers.comparisons import holm
from mmlens.papers.goh.report import goh_figures
from mmlens.papers.goh.report.goh_texts import CLAIMS, ENOUGH, HOW, RULES, TITLES, P
from mmlens.papers.study_report import Part

WAYS = {"paper": "the paper's way", "large": "one large word"}


def part(key: str, says: str, holds: bool | None = None, **more: Any) -> Part:
    """An experiment with its texts; the claim, where it makes one, is judged `holds`."""
    verdict = Verdict(key, CLAIMS[key], holds, says) if key in CLAIMS else None
    told = {"rule": RULES.get(key, ""), "numbered": key != "probes", **more}
    return Part(key, TITLES[key], HOW[key], says, verdict, **told)


def unmeasured(key: str, why: str) -> Part:
    """An experiment that could not be asked."""
    return part(key, f"Not measured: {why}")


def percent(value: float, digits: int = 0) -> str:
    """A share as people write it."""
    return f"{value:.{digits}%}".replace("%", " %")


def formats_told(table: pd.DataFrame, other: str = "") -> Part:
    """T2.

    Args:
        table: as `matched_units` gives it, and a column neuron.
        other: the name of the other encoder; empty without one.
    """
    table = table.assign(p_holm=holm(table["p"].tolist()))
    table = table.assign(passes=table["passes"] & (table["p_holm"] <= P))
    n, bar = len(table), float(table["bar"].iloc[0])
    passing: Any = table[table["passes"]]
    k, units = len(passing), passing["unit"].nunique()
    says = (
        f"{k} of {n} judged concepts have a unit whose index, with its interval, lies above"
        f" distractors (0), above the highest of mixed-up concepts ({bar:.2f})"
    )
    says += f" and above the matched unit of {other}." if other else "."
    holds = True if units >= ENOUGH else (None if n < 2 * ENOUGH else False)
    head = ["concept", "unit", "index z", "AUROC", "weakest in"]
    head += [f"matched unit of {other}: z"] if other else []
    head += ["passes"]
    lines = [
        [row["concept"], str(row["neuron"]), interval(row, "z"), interval(row, "auroc"),
         row["weakest"], *([interval(row, "other_z")] if other else []),
         "yes" if row["passes"] else "no"]
        for row in table.to_dict("records")
    ]  # fmt: skip
    return part(
        "T2", says, holds, table=[head, *lines],
        summary=table.drop(columns="neuron"), draw=partial(goh_figures.indices, table, other),
    )  # fmt: skip


def interval(row: Mapping[str, Any], name: str) -> str:
    """A number with its interval."""
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def attack_told(table: Any, gaps: Mapping[str, Any]) -> Part:
    """T3, from the attacks and, per way of writing, the interval of success minus control."""
    _, low, high = map(float, gaps["paper"])
    says = ". ".join(
        f"{WAYS[way]}: {percent(one[0], 1)} [{percent(one[1], 1)}, {percent(one[2], 1)}] of"
        " pictures, beyond a control word, are called what is written on them".capitalize()
        for way, one in gaps.items()
    )
    holds = True if low > 0 else (False if high < 0 else None)
    real, rows = table[table["text"] == table["target"]], []
    control = table[table["text"] != table["target"]].groupby("way")["accuracy"].mean()
    for way in gaps:
        here = real[real["way"] == way]
        paper = way == "paper"
        told = (
            ("success, mean over words", percent(here["fraction_changed_to"].mean(), 1),
             "36.4 % to 95.4 %"),
            ("pixel cover", percent(here["avg_img_l0_norm_diff"].mean(), 2), "6.41 % to 8.11 %"),
            ("accuracy with a word", percent(here["accuracy"].mean(), 1), ""),
            ("accuracy with the control word", percent(control[way], 1), ""),
        )  # fmt: skip
        rows += [
            Row(f"{WAYS[way]}: {what}", value, known if paper else "",
                "table of attacks" if paper and known else "")
            for what, value, known in told
        ]  # fmt: skip
    first: Any = table.iloc[0]
    rows += [
        Row("clean accuracy", percent(first["baseline_accuracy"], 1), "74.2 %", "data"),
        Row("who answers", str(first["classifier"]), "linear probe on RN50x4", "text"),
    ]
    notes = []
    if low <= 0 < float(gaps["large"][1]):
        notes = [
            "In the paper's way a word is named no more than what a control writes; one large word"
            " is. Either hides what is shown: see the accuracies."
        ]
    return part("T3", says + ".", holds, rows=rows, notes=notes, summary=table)


def stroop_told(
    rates: pd.DataFrame,
    chance: float,
    answers: Sequence[Sequence[str]] = (),
    text: str = "",
    asked: Mapping[str, pd.DataFrame] | None = None,
) -> Part:
    """T4.

    Args:
        rates: what `stroop_rates` gives. chance: of naming an ink without knowing it.
        answers: ink by word, what is answered; the head first.
        text: that was asked with. asked: the rates of other texts.
    """
    told: Mapping[str, Any] = {row["condition"]: row for row in rates.to_dict("records")}
    apart, known = told["incongruent"], told["neutral"]["ink_low"] > chance
    says = (
        f"Where they disagree ({apart['n']} pictures), the word is read in {percent(apart['word'])}"
        f" [{percent(apart['word_low'])}, {percent(apart['word_high'])}] and the ink named in"
        f" {percent(apart['ink'])} [{percent(apart['ink_low'])}, {percent(apart['ink_high'])}]."
    )
    says += "" if known else " Of a word that names no colour the ink is not named above chance."
    holds = None
    if apart["word_low"] > apart["ink_high"] and known:
        holds = True
    elif apart["word_high"] < apart["ink_low"]:
        holds = False
    rows = [
        Row(f"{kind}: ink named", _share(told[kind], "ink"), paper, "Stroop")
        for kind, paper in (("congruent", "7 of 7"), ("incongruent", "0 of 49"),
                            ("neutral", "8 of 8"))
    ]  # fmt: skip
    rows.append(Row("incongruent: word read", _share(apart, "word"), "49 of 49", "Stroop"))
    for other, table in (asked or {}).items():
        row: Any = table[table["condition"] == "incongruent"].iloc[0]
        rows.append(Row(f"incongruent, asked “{other}”: word read", _share(row, "word")))
    notes = (
        [f"Asked with “{text}”; the table has the answer by ink (rows) and word."] if text else []
    )
    return part("T4", says, holds, rows=rows, table=answers, notes=notes, summary=rates)


def _share(row: Mapping[str, Any], what: str) -> str:
    low, high = (percent(row[f"{what}_{end}"]) for end in ("low", "high"))
    return f"{percent(row[what])} [{low}, {high}]"


def conditional_told(table: pd.DataFrame, medians: pd.DataFrame) -> Part:
    """T5.

    Args:
        table: `label_given_activation` of several units: with columns unit and concept.
        medians: `activation_given_label` of the same.
    """
    own: Any = table[table["label"] == table["concept"]]
    lines = []
    for unit, here in own.groupby("unit", sort=False):
        concept, top = here["concept"].iloc[0], here.loc[here["end"].idxmax()]
        last: Any = top
        there = medians[medians["unit"] == unit].set_index("label")["median"]
        lines.append(
            [str(unit), concept, f"{percent(last['probability'])} of {int(last['n'])}",
             f"from {last['start']:.1f}", f"{there[concept]:.1f}", f"{there['other']:.1f}"]
        )  # fmt: skip
    head = ["unit", "concept", "in the highest bucket", "its start (SD)", "median, concept (SD)",
            "median, others (SD)"]  # fmt: skip
    says = "; ".join(f"{line[0]}, highest bucket: {line[2]} show {line[1]!r}" for line in lines)
    first: Any = table[table["unit"] == table["unit"].iloc[0]]
    return part("T5", f"{says}.", table=[head, *lines], summary=table,
                draw=partial(goh_figures.given_activation, first))  # fmt: skip


def vectors_told(pairs: pd.DataFrame) -> Part:
    """T6.

    Args:
        pairs: of different words, as `word_association` gives them; the closest first.
    """
    first: Any = pairs.iloc[0]
    every: Any = pairs["raw"]
    mean = float(every.mean())
    names = f"({first['word']}, {first['other']})"
    says = (
        f"Different words have a mean cosine of {mean:.2f} as they are. With the mean taken out,"
        f" the closest pair {names} has {first['cosine']:.2f}; as it is, {first['raw']:.2f}."
    )
    note = "footnote on image-based embeddings"
    rows = [
        Row("all pairs, as they are, mean", f"{mean:.2f}"),
        Row("one pair, as it is", f"{first['raw']:.2f} {names}", ".98 (Terrorism, Muslim)", note),
        Row("closest pair, mean taken out", f"{first['cosine']:.2f} {names}",
            ".52 (Terrorist, Muslims)", note),
    ]  # fmt: skip
    return part("T6", says, rows=rows, summary=pairs.head(20))


def blank_told(own: pd.DataFrame) -> Part:
    """T7, from one row per concept: the change of its own text's logit, and its rank."""
    own = own.assign(p_holm=holm(own["p"].tolist()))
    clear: Any = own[(own["p_holm"] <= P) & (own["change"] > 0)]
    units = clear["neuron"].nunique()
    says = (
        f"Of {len(clear)} of {len(own)} concepts the unit raises the concept's text more than other"
        f" units of the layer do (p at most {P}, after Holm): {units} different units."
    )
    lines = [["concept", "unit", "change of its text's logit", "p", "rank of the text"]]
    lines += [
        [row["concept"], str(row["neuron"]), f"{row['change']:+.2f}", f"{row['p_holm']:.3f}",
         f"{row['rank']} of {row['texts']}"]
        for row in own.to_dict("records")
    ]  # fmt: skip
    holds = True if units >= ENOUGH else None
    return part("T7", says, holds, table=lines, summary=own.drop(columns="neuron"))
