"""`hallucination`: whether what is said to help against it does, on one model, as one page.

    C1          internal confidence is higher for what is there (Jiang et al. 2024)
    D1 to D4    VCD, PAI, the penalty on over-trust, VTI: captions name less that is not there

Each way is judged by its own paper's claim, in the paper's numbers, against plain greedy decoding,
picture by picture. OUT/plain, OUT/VCD, ... are the sweeps of the arms: a run that was stopped goes
on where it was.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.bundled import pictos
from mmlens.datasets.spec import dataset
from mmlens.papers.bootstrap import DRAWS, LEAST
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.hallucination.arms_of_papers import AMPLIFIED, PAI, TRUST, VCD, VTI, known_arms
from mmlens.papers.hallucination.chair_study import hallucination
from mmlens.papers.hallucination.chair_summary import PLAIN
from mmlens.papers.interval_plots import strips
from mmlens.papers.study_folder import (
    StudyReport,
    above,
    below,
    framed,
    opened,
    told_interval,
    write_study,
)
from mmlens.papers.study_report import Part
from mmlens.values.arguments import path

if TYPE_CHECKING:
    from mmlens.metrics.vocabulary import Vocabulary
    from mmlens.model.hooked_vlm import HookedVLM

PICTURES, THINGS = 64, 3
"""Of the bundled world by default: pictures of three things, which its model names least well."""
WAYS = {"D1": VCD, "D2": PAI, "D3": TRUST, "D4": VTI}
CLAIMS = {
    "C1": "Internal confidence is higher for things that are there",
    "D1": "A contrast with the picture in noise lowers hallucination",
    "D2": "Attention to the picture amplified, and a contrast with words alone, lower it",
    "D3": "A penalty on over-trust lowers it",
    "D4": "Steering along shifts of encoder and words lowers it",
}
SOURCES = {
    "C1": "Jiang et al. (2024), arXiv:2410.02762",
    "D1": "VCD, Leng et al. (2023), arXiv:2311.16922",
    "D2": "PAI, Liu et al. (2024), arXiv:2407.21771",
    "D3": "OPERA, Huang et al. (2024), arXiv:2311.17911, without its beams and its roll-back",
    "D4": "VTI, Liu et al. (2024), arXiv:2410.15778",
}
TITLE = "Decoding against hallucination, measured again"
READ = (
    "CHAIR-i is the share of mentions that name something that is not there, CHAIR-s that of"
    " captions with such a mention, recall the share of a picture's things that are named: silence"
    " hallucinates nothing. Intervals are 95 % intervals over pictures; differences are taken"
    " picture by picture. “Holds”, “fails” and “undecided” are computed from these by the rule"
    f" that stands under the claim; of fewer than {LEAST} pictures no claim is decided. The ways"
    " have their papers' numbers, which were chosen for other models."
)
CONFIDENCE = (
    "The confidence of a thing is the largest probability that the logit lens reads of its name at"
    " any position of the picture in any layer, before anything is said. AUROC: how often it is"
    " higher for a named thing that is there than for one that is not; 0.5 is chance."
)
METRICS = ("CHAIR-i", "CHAIR-s", "recall", "mentions")


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "hallucination",
    *,
    vocabulary: Vocabulary | None = None,
    captions: bool = False,
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Caption every picture plainly and in four ways, and report which of them helps.

    Args:
        data: what `mmlens.dataset` takes, with things that are known; by default pictures of three
            things of the bundled world.
        out: the folder that is written.
        vocabulary, captions, max_new_tokens: as in `hallucination`.
        draws: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        SweepError: the folder holds another study.
    """
    samples = pictos("held_out", PICTURES, things=THINGS) if data is None else dataset(data)
    loaded = opened(model)
    found = hallucination(
        loaded, samples, path(out, "out"), edited=known_arms(loaded), vocabulary=vocabulary,
        captions=captions, max_new_tokens=max_new_tokens, draws=draws, seed=seed, resume=resume,
        progress=progress,
    )  # fmt: skip
    parts = [confidence(found.summary), *(way(key, found.summary) for key in WAYS)]
    lead = (
        f"{loaded.name} on {samples.name}, {len(samples)} pictures: captions of at most"
        f" {max_new_tokens} tokens, plain and in {len(WAYS)} ways."
    )
    cited = "; ".join(SOURCES.values())
    frame = framed("hallucination", TITLE, lead, READ, cited, found.about, command, several=True)
    return write_study(frame, parts, out, results, contest(found.summary))


def contest(summary: pd.DataFrame) -> list[Contest]:
    """Every way against plain greedy decoding; none where nothing is mentioned."""
    here: Any = summary[summary["metric"] == "CHAIR-i"]
    arms = set(here["arm"])
    ways = [arm for arm in (*WAYS.values(), AMPLIFIED) if f"{arm} - {PLAIN}" in arms]
    if not ways:
        return []
    asked = "Which way of decoding names less that is not there?"
    what = "CHAIR-i, the share of mentions that name what is not there"
    found = Contest(asked, what, here, dict.fromkeys(ways, PLAIN), better="less",
                    control="greedy decoding")  # fmt: skip
    return [found]


def confidence(summary: pd.DataFrame) -> Part:
    """C1."""
    row = _row(summary, PLAIN, "AUROC")
    if row is None:
        says = "Not measured: nothing that is there, or nothing that is not, was named."
        return _part("C1", CONFIDENCE, says, None)
    says = f"AUROC {told_interval(row)}; the rarer kind is named in {row['n']} pictures."
    rule = "it holds if the interval of AUROC lies above 0.5, and fails if it lies below."
    each = [Row(arm, told_interval(one)) for arm in (PLAIN, AMPLIFIED, *WAYS.values())
            if (one := _row(summary, arm, "AUROC")) is not None]  # fmt: skip
    here = summary[summary["metric"] == "AUROC"]
    return _part("C1", CONFIDENCE, says, above(row, 0.5), rule=rule, rows=each, summary=here)


def way(key: str, summary: pd.DataFrame) -> Part:
    """D1 to D4."""
    arm = WAYS[key]
    how = f"{SOURCES[key]}. The same pictures, once more, against plain greedy decoding."
    gap = _row(summary, f"{arm} - {PLAIN}", "CHAIR-i")
    if gap is None:
        return _part(key, how, "Not measured: no mention to count.", None)
    both = [_row(summary, one, "CHAIR-i") for one in (arm, PLAIN)]
    first, second = ("" if one is None else told_interval(one) for one in both)
    kept = _row(summary, f"{arm} - {PLAIN}", "recall")
    says = (
        f"CHAIR-i {first} against {second}: a difference of {told_interval(gap)}, in {gap['n']}"
        " pictures."
    )
    says += "" if kept is None else f" Recall changes by {told_interval(kept)}."
    arms = [PLAIN, arm, *([AMPLIFIED] if arm == PAI else [])]
    table = [["", *METRICS]]
    for one in [*arms, *(f"{other} - {PLAIN}" for other in arms[1:])]:
        rows = [_row(summary, one, metric) for metric in METRICS]
        table.append([one, *("" if row is None else told_interval(row) for row in rows)])
    rule = (
        f"it holds if the interval of ({arm} - {PLAIN}) of CHAIR-i lies below 0, and fails if it"
        " lies above."
    )
    names = [*arms, *(f"{other} - {PLAIN}" for other in arms[1:])]
    here: Any = summary[summary["arm"].isin(names)]
    shown = here[here["metric"].isin(METRICS[:3])].rename(columns={"metric": "panel"})
    draw = partial(strips, shown, {one: one for one in arms}, arm, "with 95 % intervals")
    more = {"rule": rule, "table": table, "summary": here, "draw": draw}
    return _part(key, how, says, below(gap), **more)


def _part(key: str, how: str, says: str, holds: bool | None, **more: Any) -> Part:
    title = CONFIDENCE_TITLE if key == "C1" else f"Does {WAYS[key]} help?"
    return Part(key, title, how, says, Verdict(key, CLAIMS[key], holds, says), **more)


CONFIDENCE_TITLE = "Do the picture's own positions know better?"


def _row(summary: pd.DataFrame, arm: str, metric: str) -> dict[str, Any] | None:
    """The one row of an arm and a metric, where there is one."""
    found: Any = summary[(summary["arm"] == arm) & (summary["metric"] == metric)]
    return None if not len(found) else {str(k): v for k, v in found.iloc[0].items()}
