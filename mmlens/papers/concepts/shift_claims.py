"""Claims of Khayatan et al. about concepts of a model that was changed, from the streams of both.

S1 consistent   the pictures of a concept shift alike
S2 recovered    a concept and its shift are nearer to a concept of the changed model
S3 steered      adding the shift makes the first model say what the changed one says
S4 others       and leaves other concepts' words

What is added to the stream of the last layer where the noun is predicted gives the logits exactly,
so that no pass is needed: the word is argmax U(h + v).
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.concepts.word_dictionaries import (
    WordDictionary,
    found_again,
    semi_nmf_of,
    words_of,
)
from mmlens.papers.concepts.word_shifts import COARSE, FINE, RANDOM, SHIFT, WordShifts, longer
from mmlens.papers.concepts.word_streams import WordStreams
from mmlens.papers.contests import Contest
from mmlens.papers.study_folder import above, below, told_interval
from mmlens.papers.study_report import Part

KEPT = 0.1
"""What counts as little: fewer than a tenth of the words change."""
OWN, OTHER = "its own concept", "other concepts"
MOVED, BARE = "with its shift", "without"
RANGES = {"cosine": (-1.0, 1.0), "said": (0.0, 1.0), "changed": (0.0, 1.0)}
CLAIMS = {
    "S1": "The pictures of a concept shift alike",
    "S2": "A concept and its shift are nearer to a concept of the changed model",
    "S3": "Adding the shift makes the model say what the changed one says",
    "S4": "It leaves the words of other concepts",
}
TITLES = {
    "S1": "Do a concept's pictures shift alike?",
    "S2": "Does the shift lead to a concept of the changed model?",
    "S3": "Does steering along the shift say the new word?",
    "S4": "Are others left alone?",
}
SOURCE = "Khayatan et al. (2025), arXiv:2501.03012"
HOW = {
    "S1": "A picture belongs to the concept that is strongest in it. The cosine of its own shift"
    " (its stream in the changed model less that in the first) with the mean shift of its concept's"
    " pictures in the other half, and with those of other concepts.",
    "S2": "Of each concept, the cosine with its partner among the concepts of the changed model"
    " (Hungarian assignment), with its shift added and without. Drawn are concepts.",
    "S3": "Asked are pictures of which the changed model says another word. To the stream is added"
    f" the {SHIFT}, the {COARSE} (of pictures of the new word, less those of the old),"
    f" or the {FINE} (of the clusters of both); beside each, eight random directions as long.",
    "S4": "Asked are pictures of which both models say the same. Added is what was added in S3 to"
    " pictures of other nouns and other concepts.",
}
RULES = {
    "S1": f"it holds if the interval of ({OWN} - {OTHER}) lies above 0, and fails if it lies"
    " below.",
    "S2": "it holds if the interval of the gain lies above 0, and fails if it lies below.",
    "S3": f"it holds if the interval of ({SHIFT} - {RANDOM} as the {SHIFT}) lies above 0, and fails"
    " if it lies below.",
    "S4": f"it holds if the interval of the share of words that change lies below {KEPT}, and fails"
    " if it lies above.",
}


def shift_parts(
    model: Any, streams: WordStreams, n: int, words: int, draws: int, seed: int, lacking: str = ""
) -> tuple[list[Part], list[Contest]]:
    """The parts of all four claims, and the contest of the directions that are added.

    Args:
        lacking: why there is no changed model, in a sentence.
    """
    if streams.after is None:
        return [_part(key, f"Not measured: {lacking}", None) for key in CLAIMS], []
    made = semi_nmf_of(streams.before[streams.pool], n, seed)
    shifts = WordShifts(model, streams, made, n, seed)
    how: dict[str, Any] = {"draws": draws, "seed": seed}
    parts = [_consistent(model, shifts, words, **how), _recovered(shifts, n, **how)]
    steered, contests = _steered(shifts, **how)
    return [*parts, *steered], contests


def _consistent(model: Any, shifts: WordShifts, words: int, **how: Any) -> Part:
    """S1."""
    rows = [
        (shifts.streams.ids[at], arm, cosine)
        for at in shifts.asked
        for arm, cosine in zip((OWN, OTHER), shifts.alike(at), strict=True)
        if cosine is not None
    ]
    table = pd.DataFrame(rows, columns=["sample", "arm", "value"]).assign(metric="cosine")
    if not len(table):
        return _part("S1", "Not measured: no concept shifts in two pictures.", None)
    found = _by_arm(with_differences(table, (OWN, OTHER)), **how)
    own, other, gap = (found[arm] for arm in (OWN, OTHER, f"{OWN} - {OTHER}"))
    says = (
        f"A picture's shift has a cosine of {told_interval(own)} with the mean shift of its own"
        f" concept and of {told_interval(other)} with those of others: a difference of"
        f" {told_interval(gap)}, in {gap['n']} pictures."
    )
    said = words_of(model, shifts.made.directions, words)
    lines = [["concept", "words", "pictures", "consistency", "length of its shift"]]
    for row in shifts.consistency().to_dict("records"):
        named = ", ".join(said[row["concept"]][:4])
        lines.append([str(row["concept"]), named, str(row["prompts"]),
                      f"{row['consistency']:.2f}", f"{row['length']:.2f}"])  # fmt: skip
    rows_ = [Row(arm, told_interval(row)) for arm, row in found.items()]
    return _part("S1", says, above(gap), rows=rows_, table=lines,
                 summary=pd.DataFrame(found.values()))  # fmt: skip


def _recovered(shifts: WordShifts, n: int, **how: Any) -> Part:
    """S2."""
    streams = shifts.streams
    assert streams.after is not None
    changed: WordDictionary = semi_nmf_of(streams.after[streams.pool], n, how["seed"])
    there = [at for at, size in enumerate(shifts.sizes) if size > 0]
    before = shifts.contributions[there]
    rows = [
        (str(concept), arm, float(cosine))
        for arm, moved in ((BARE, before), (MOVED, before + shifts.mean[there]))
        for concept, cosine in zip(there, found_again(moved, changed.directions), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["sample", "arm", "value"]).assign(metric="cosine")
    found = _by_arm(with_differences(table, (MOVED, BARE)), **how)
    gap = found[f"{MOVED} - {BARE}"]
    says = (
        f"With its shift a concept has a cosine of {told_interval(found[MOVED])} with its partner,"
        f" without {told_interval(found[BARE])}: a gain of {told_interval(gap, 3)}, over"
        f" {gap['n']} concepts."
    )
    told = [Row(arm, told_interval(row, 3)) for arm, row in found.items()]
    return _part("S2", says, above(gap), rows=told, summary=pd.DataFrame(found.values()))


def _steered(shifts: WordShifts, **how: Any) -> tuple[list[Part], list[Contest]]:
    """S3 and S4."""
    said = shifts.said_new().assign(metric="said")
    left = shifts.words_changed().assign(metric="changed")
    if not len(said):
        lacking = "Not measured: the changed model says no other word in any picture that is asked."
        return [_part(key, lacking, None) for key in ("S3", "S4")], []
    there = [arm for arm in (SHIFT, COARSE, FINE) if arm in set(said["arm"])]
    pairs = [(arm, longer(arm)) for arm in there]
    pairs += [(SHIFT, arm) for arm in there if arm != SHIFT]
    found = _by_arm(with_differences(said, *pairs), **how)
    own, noise, gap = found[SHIFT], found[longer(SHIFT)], found[f"{SHIFT} - {longer(SHIFT)}"]
    says = (
        f"With the {SHIFT} the model says the changed one's word in {told_interval(own)} of"
        f" {own['n']} pictures, with random directions of its length in {told_interval(noise)}."
    )
    rows = [Row(arm, told_interval(row)) for arm, row in found.items()]
    parts = [_part("S3", says, above(gap), rows=rows, summary=pd.DataFrame(found.values()))]
    controls = {arm: longer(arm) for arm in there}
    contest = Contest(
        "Which direction makes a model say another word?",
        "the share of pictures that are called by it",
        said, controls, control="random directions, as long", within=(0.0, 1.0),
    )  # fmt: skip
    if not len(left):
        lacking = "Not measured: of no picture do both models say the same."
        return [*parts, _part("S4", lacking, None)], [contest]
    found = _by_arm(left, **how)
    own, noise = found[SHIFT], found[longer(SHIFT)]
    says = (
        f"{told_interval(own)} of the words of {own['n']} pictures change with the shift of another"
        f" concept, {told_interval(noise)} with random directions of its length."
    )
    rows = [Row(arm, told_interval(row)) for arm, row in found.items()]
    part = _part("S4", says, below(own, KEPT), rows=rows, summary=pd.DataFrame(found.values()))
    return [*parts, part], [contest]


def _by_arm(rows: pd.DataFrame, **how: Any) -> dict[str, dict[str, Any]]:
    found: Any = summarise(rows, ["arm", "metric"], ranges=RANGES, **how)
    return {
        str(row["arm"]): {str(k): v for k, v in row.items()} for row in found.to_dict("records")
    }


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], f"{SOURCE}. {HOW[key]}", says, verdict, RULES[key], **more)
