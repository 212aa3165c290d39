"""CoX-LMM's claims, judged from the streams of many pictures.

C1 words       the words of a picture's strongest concept name what is in it
C2 pictures    they do so more than those of other dictionaries
C3 overlap     concepts share fewer words than k-means' do
C4 again       another half of the pictures gives the same concepts
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from mmlens.papers.bootstrap import LEAST, summarise, with_differences
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.concepts.word_dictionaries import (
    AXES,
    LONGEST,
    MADE,
    MEANS,
    NMF,
    RANDOM,
    found_again,
    longest_of,
    means_of,
    named,
    semi_nmf_of,
    shared_words,
    words_of,
)
from mmlens.papers.concepts.word_streams import WordStreams
from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.study_folder import above, below, by_arm, together, told_interval
from mmlens.papers.study_report import Part

ELSEWHERE = "another picture"
RANGES = {"named": (0.0, 1.0)}
CLAIMS = {
    "C1": "The words of a picture's strongest concept name what is in it",
    "C2": "They do so more than the words of other dictionaries",
    "C3": "Concepts share fewer words than the means of clusters do",
    "C4": "Other pictures of the same words give the same concepts",
}
TITLES = {
    "C1": "Do concepts name what is in the picture?",
    "C2": "More than other dictionaries?",
    "C3": "Do they share fewer words?",
    "C4": "Are they found again?",
}
SOURCE = "Parekh et al. (2024), arXiv:2406.08074"
HOW = {
    "C1": "A dictionary is made of one half of the pictures. In each of the others its strongest"
    " direction is read by the logit lens; counted is whether one of its ten words is the name of a"
    f" thing in the picture. “{ELSEWHERE}”: of a thing in any other picture, on average over all;"
    f" “{RANDOM}”: the words are those of random directions.",
    "C2": "The same, for every dictionary.",
    "C3": "The mean share of a direction's words that another has, over all pairs. Dictionaries are"
    " made of random halves of all pictures.",
    "C4": "Of each random half and of the rest a dictionary is made, from another seed, and their"
    " directions are matched one to one. Streams lie in a cone, so that the cosines of any two are"
    f" high; “{LONGEST}” are as many streams of either half, matched in the same way.",
}
RULES = {
    "C1": f"it holds if the intervals of ({NMF}) - ({NMF}, {ELSEWHERE}) and of ({NMF}) - ({RANDOM})"
    " lie above 0, and fails if one lies below.",
    "C2": f"it holds if the intervals of ({NMF}) less ({MEANS}), ({AXES}) and ({LONGEST}) lie above"
    " 0, and fails if one lies below.",
    "C3": f"it holds if the interval of ({NMF}) - ({MEANS}) lies below 0, and fails if it lies"
    " above; the interval holds 95 % of the random halves.",
    "C4": f"it holds if the interval of ({NMF}) - ({LONGEST}) lies above 0, and fails if it lies"
    " below; the interval holds 95 % of the random halves.",
}


def named_things(model: Any, streams: WordStreams, n: int, words: int, seed: int) -> pd.DataFrame:
    """Whether the strongest direction's words name what is in each asked picture.

    Returns:
        sample, arm (a dictionary, alone or with ", another picture"), metric "named", value.
    """
    pool, rest = streams.before[streams.pool], streams.before[~streams.pool]
    asked = (~streams.pool).nonzero().flatten().tolist()
    rows = []
    for arm, make in MADE.items():
        made = make(pool, n, seed)
        said = words_of(model, made.directions, words)
        hits = np.array([[named(row, streams.things[at]) for at in asked] for row in said], float)
        for place, best in enumerate(made.strongest(rest)):
            own = hits[best, place]
            away = (hits[best].sum() - own) / max(len(asked) - 1, 1)
            name = streams.ids[asked[place]]
            rows += [(name, arm, own), (name, f"{arm}, {ELSEWHERE}", away)]
    table = pd.DataFrame(rows, columns=["sample", "arm", "value"])
    return table.assign(metric="named")


def of_halves(
    model: Any, streams: WordStreams, n: int, words: int, halves: int, seed: int
) -> pd.DataFrame:
    """How dictionaries of random halves of the pictures overlap, and whether the rest finds them.

    Returns:
        half, metric ("overlap", "again"), arm, value.
    """
    Z, draw, rows = streams.before, torch.Generator().manual_seed(seed), []
    for half in range(halves):
        order = torch.randperm(len(Z), generator=draw)
        one, other = Z[order[: len(Z) // 2]], Z[order[len(Z) // 2 :]]
        for arm, make in ((NMF, semi_nmf_of), (MEANS, means_of), (LONGEST, longest_of)):
            first = make(one, n, seed + half).directions
            again = found_again(first, make(other, n, seed + half + halves).directions)
            shared = shared_words(words_of(model, first, words))
            rows += [(half, "again", arm, float(again.mean())), (half, "overlap", arm, shared)]
    return pd.DataFrame(rows, columns=["half", "metric", "arm", "value"])


def spread_of(halves: pd.DataFrame, metric: str, pictures: int) -> dict[str, dict[str, Any]]:
    """By arm and difference of `NMF` and an arm: the mean of the halves, and where 95 % lie.

    Half of the pictures, drawn without replacement, vary around the whole as the whole does around
    what it is drawn from, so that this is an interval over pictures.
    """
    wide: Any = halves[halves["metric"] == metric].pivot(
        index="half", columns="arm", values="value"
    )
    series = {str(arm): wide[arm] for arm in wide}
    series |= {f"{NMF} - {arm}": wide[NMF] - wide[arm] for arm in wide if arm != NMF}
    return {
        arm: {"arm": arm, "mean": float(one.mean()), "low": float(one.quantile(0.025)),
              "high": float(one.quantile(0.975)), "n": pictures}
        for arm, one in series.items()
    }  # fmt: skip


def word_parts(
    model: Any, streams: WordStreams, n: int, words: int, halves: int, draws: int, seed: int
) -> tuple[list[Part], Contest]:
    """The parts of all four claims, and the contest of the dictionaries."""
    rows = named_things(model, streams, n, words, seed)
    pairs = [(NMF, f"{NMF}, {ELSEWHERE}"), *((NMF, arm) for arm in MADE if arm != NMF)]
    both = with_differences(rows, *pairs)
    found: Any = summarise(both, ["arm", "metric"], ranges=RANGES, draws=draws, seed=seed)
    by = by_arm(found)
    made = semi_nmf_of(streams.before[streams.pool], n, seed)
    table = concept_table(model, streams, made, words)
    parted = of_halves(model, streams, n, words, halves, seed)
    parts = [_words(by, found, table), _others(by, found)]
    for key, metric, other, decide in (
        ("C3", "overlap", MEANS, below), ("C4", "again", LONGEST, above),
    ):  # fmt: skip
        spread = spread_of(parted, metric, len(streams.ids))
        gap = f"{NMF} - {other}"
        what = "share of words" if metric == "overlap" else "cosine"
        says = (
            f"The mean {what} is {told_interval(spread[NMF])}, with {other}"
            f" {told_interval(spread[other])}: a difference of {told_interval(spread[gap])}, in"
            f" {halves} halves of {len(streams.ids)} pictures."
        )
        told = [Row(arm, told_interval(row)) for arm, row in spread.items()]
        holds = decide(spread[gap]) if halves >= LEAST else None
        parts.append(_part(key, says, holds, rows=told, summary=pd.DataFrame(spread.values())))
    controls = {arm: f"{arm}, {ELSEWHERE}" for arm in MADE if arm != RANDOM}
    contest = Contest(
        "Which directions of the stream name what is in a picture?",
        f"the share of pictures of which one of {words} words names a thing",
        rows, controls, control="any other picture", within=(0.0, 1.0),
    )  # fmt: skip
    return parts, contest


def concept_table(model: Any, streams: WordStreams, made: Any, words: int) -> list[list[str]]:
    """What each concept says, and what is in the five asked pictures where it is strongest."""
    said = words_of(model, made.directions, words)
    asked = (~streams.pool).nonzero().flatten().tolist()
    strong = made.strengths(streams.before[~streams.pool])
    lines = [["concept", "words", "in its five strongest pictures"]]
    for concept, row in enumerate(said):
        best = strong[:, concept].argsort(descending=True, stable=True)[:5].tolist()
        shown = "; ".join(", ".join(streams.things[asked[at]]) or "?" for at in best)
        lines.append([str(concept), ", ".join(row[:6]), shown])
    return lines


def _words(by: dict[str, Any], found: Any, table: list[list[str]]) -> Part:
    own, away, noise = (by[arm] for arm in (NMF, f"{NMF}, {ELSEWHERE}", RANDOM))
    gaps = [by[f"{NMF} - {NMF}, {ELSEWHERE}"], by[f"{NMF} - {RANDOM}"]]
    says = (
        f"The words of the strongest concept name something in {told_interval(own)} of"
        f" {own['n']} pictures, in {told_interval(away)} of others, and words of random directions"
        f" do in {told_interval(noise)}."
    )
    told = [Row(f"beyond {what}", told_interval(gap))
            for what, gap in zip((ELSEWHERE, RANDOM), gaps, strict=True)]  # fmt: skip
    holds = together(*map(above, gaps))
    return _part("C1", says, holds, rows=told, table=table, summary=found)


def _others(by: dict[str, Any], found: Any) -> Part:
    others = (MEANS, AXES, LONGEST)
    gaps = {arm: by[f"{NMF} - {arm}"] for arm in others}
    told = ", ".join(f"those of {arm} in {told_interval(by[arm])}" for arm in others)
    says = f"Words of {NMF} name something in {told_interval(by[NMF])} of the pictures, {told}."
    rows = [Row(f"{NMF} - {arm}", told_interval(gap)) for arm, gap in gaps.items()]
    shown = found[found["arm"].isin([*MADE, *(f"{arm}, {ELSEWHERE}" for arm in MADE)])]
    shown = shown.assign(panel=["another picture" if ELSEWHERE in arm else "its own picture"
                                for arm in shown["arm"]])  # fmt: skip
    shown["arm"] = [arm.removesuffix(f", {ELSEWHERE}") for arm in shown["arm"]]
    draw = partial(
        strips,
        shown,
        {arm: arm for arm in MADE},
        "Pictures of which one of ten words names a thing",
        "with 95 % intervals",
    )
    return _part("C2", says, together(*map(above, gaps.values())), rows=rows, draw=draw)


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], f"{SOURCE}. {HOW[key]}", says, verdict, RULES[key], **more)
