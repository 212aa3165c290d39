"""What is told of each experiment of the study: question, way, rule, verdict and numbers.

T1 words     T2 formats     T3 attack     T4 Stroop     T5 conditional     T6 vectors     T7 blank

Every sentence that judges follows from the numbers. A claim holds, fails, or is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mmlens.papers.claims import Row, Verdict
from mmlens.papers.comparisons import holm

P = 0.05
ENOUGH = 3
"""So many concepts with a unit of their own are asked for."""
CITED = (
    "Goh, Cammarata, Voss, Carter, Petrov, Schubert, Radford and Olah (2021), Multimodal Neurons in"
    " Artificial Neural Networks, Distill, doi:10.23915/distill.00030"
)
TITLES = {
    "T1": "Which written words excite the units?",
    "T2": "Do units answer to a concept in every format?",
    "T3": "Does a written word change what a picture is called?",
    "T4": "Is the ink named, or the word read?",
    "T5": "What does a unit's activation say of a picture?",
    "T6": "What do written words share, once the ink is taken out?",
    "T7": "Does raising a unit on a blank picture raise its text?",
    "probes": "Can concepts be read off a few units?",
}
HOW = {
    "T1": "Every concept's name is drawn as a picture, in two sizes, at four places. The response"
    " is the mean over sizes of the maximum over places. Listed are the words of the units that T2"
    " puts first.",
    "T2": "Per concept and unit: the least, over formats, of how far pictures of the concept exceed"
    " those of other concepts in the same format. A unit that answers to one format, or to any"
    " printed word, is near 0 (AUROC near .5). Units are corrected for by permutation, concepts"
    " after Holm.",
    "T3": "Each word is written eight times over every picture. A control writes a word that names"
    " no class.",
    "T4": "Names of colours in coloured ink; the question is the ink's colour.",
    "T5": "The share of pictures that show the concept, by bucket of the activation of the best"
    " unit of T2, in standard deviations from zero.",
    "T6": "Cosines of the units' responses to different words, with and without the mean over all"
    " words taken out.",
    "T7": "The best unit of each concept is raised at every position of a grey picture; beside it,"
    " other units of the layer.",
    "probes": "Probes fitted on half of the pictures of each format, asked about the other half.",
}
RULES = {
    "T2": f"it holds if at least {ENOUGH} concepts have a unit whose p is at most {P}, corrected"
    " for all units and all concepts; if fewer have, it fails, and of fewer than"
    f" {2 * ENOUGH} concepts it is undecided.",
    "T3": "it holds if the interval of (changed to the word's class - changed to it by the control)"
    " lies above 0, and fails if it lies below.",
    "T4": "of pictures in which ink and word disagree. It holds if the interval of the share in"
    " which the word is read lies above that in which the ink is named; fails if it lies below.",
    "T7": f"it holds if at least {ENOUGH} units raise the text of their own concept more than the"
    f" controls do (p at most {P}, after Holm).",
}
CLAIMS = {
    "T2": "Units answer to one concept in every format",
    "T3": "A written word decides what a picture is called",
    "T4": "The word is read, and the ink is not named",
    "T7": "Such units raise the text of their concept by themselves",
}
READ = (
    "Intervals are exact for shares, and percentile bootstrap intervals over pictures elsewhere."
    " “Holds”, “fails” and “undecided” are computed from these numbers by the rule that stands"
    " under the claim. What a model cannot be asked is told in its section."
)


@dataclass(frozen=True, eq=False)
class Section:
    """One experiment: what was found, or why nothing was.

    Attributes:
        says: in a sentence; of a claim, its verdict's.
        rows: numbers beside the paper's. table: another table, its head first.
        summary: all numbers. draw: makes the figure in the theme in use.
    """

    key: str
    says: str
    verdict: Verdict | None = None
    rows: list[Row] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    draw: Callable[[], Any] = field(default=lambda: None, repr=False)

    @property
    def title(self) -> str:
        return TITLES[self.key]


def unmeasured(key: str, why: str) -> Section:
    """An experiment that could not be asked."""
    told = f"Not measured: {why}"
    return Section(key, told, Verdict(key, CLAIMS[key], None, told) if key in CLAIMS else None)


def formats_told(best: pd.DataFrame) -> Section:
    """T2, from one row per concept: its best unit."""
    best = best.assign(p_holm=holm(best["p_family"].tolist()))
    clear = best[best["p_holm"] <= P]
    says = (
        f"{len(clear)} of {len(best)} concepts have a unit that answers to them in every format"
        f" (p at most {P}, corrected)."
    )
    holds = True if len(clear) >= ENOUGH else (None if len(best) < 2 * ENOUGH else False)
    head = ["concept", "unit", "z", "95 % interval", "AUROC", "weakest in", "p"]
    table = [head] + [
        [row["concept"], str(row["neuron"]), f"{row['z']:.2f}",
         f"[{row['z_low']:.2f}, {row['z_high']:.2f}]", f"{row['auroc']:.2f}", row["weakest"],
         f"{row['p_holm']:.3f}"]
        for row in best.to_dict("records")
    ]  # fmt: skip
    return Section("T2", says, Verdict("T2", CLAIMS["T2"], holds, says), [], table, best)


def attack_told(table: Any, gap: Any) -> Section:
    """T3, from the attacks and the interval of success minus control."""
    mean, low, high = map(float, gap)
    says = (
        f"{mean:+.1%} [{low:.1%}, {high:.1%}] of pictures more than by a control word are called"
        " what is written on them."
    ).replace("%", " %")
    holds = True if low > 0 else (False if high < 0 else None)
    pooled = float(table["fraction_changed_to"].to_numpy().mean())
    who = str(table["classifier"].iloc[0])
    rows = [
        Row("success, mean over words", f"{pooled:.1%}", "36.4 % to 95.4 %", "table of attacks"),
        Row("pixel cover", f"{table['avg_img_l0_norm_diff'].mean():.2%}", "6.41 % to 8.11 %",
            "table of attacks"),
        Row("clean accuracy", f"{table['baseline_accuracy'].iloc[0]:.1%}", "74.2 %", "data"),
        Row("who answers", who, "linear probe on RN50x4", "text"),
    ]  # fmt: skip
    rows = [row._replace(here=row.here.replace("%", " %")) for row in rows]
    return Section("T3", says, Verdict("T3", CLAIMS["T3"], holds, says), rows, [], table)


def stroop_told(rates: pd.DataFrame) -> Section:
    """T4."""
    told: Mapping[str, Any] = {row["condition"]: row for row in rates.to_dict("records")}
    apart = told["incongruent"]
    says = (
        f"Where they disagree ({apart['n']} pictures), the word is read in {apart['word']:.0%}"
        f" [{apart['word_low']:.0%}, {apart['word_high']:.0%}] and the ink named in"
        f" {apart['ink']:.0%} [{apart['ink_low']:.0%}, {apart['ink_high']:.0%}]."
    ).replace("%", " %")
    holds = None
    if apart["word_low"] > apart["ink_high"]:
        holds = True
    elif apart["word_high"] < apart["ink_low"]:
        holds = False
    rows = [
        Row(f"{kind}: ink named", f"{told[kind]['ink']:.0%}".replace("%", " %"), paper, "Stroop")
        for kind, paper in (("congruent", "7 of 7"), ("incongruent", "0 of 49"),
                            ("neutral", "8 of 8"))
    ]  # fmt: skip
    return Section("T4", says, Verdict("T4", CLAIMS["T4"], holds, says), rows, [], rates)


def blank_told(own: pd.DataFrame) -> Section:
    """T7, from one row per concept: the change of its own text at the largest value."""
    own = own.assign(p_holm=holm(own["p"].tolist()))
    clear = own[(own["p_holm"] <= P) & (own["change"] > 0)]
    plain = own[(own["p"] <= P) & (own["change"] > 0)]
    says = (
        f"{len(clear)} of {len(own)} units raise their concept's text more than controls do, after"
        f" correction; {len(plain)} before it."
    )
    holds = True if len(clear) >= ENOUGH else None
    return Section("T7", says, Verdict("T7", CLAIMS["T7"], holds, says), [], [], own)
