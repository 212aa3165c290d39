"""What the methods' papers claim of their maps, each judged from the one table.

M1 attention   M2 gradients   M3 propagation   M4 lenses   M5 noise   M6 covering
    the maps of the family beat random numbers, by covering and showing patches in their order
C1 chefer over rollout                C2 AttnLRP over Chefer and gradients
C3 Grad-ECLIP over those before it    C4 TAM over what does without its correction, by the mask
C5 noise in a late layer over early   C6 the lens's map of a word over that of an absent one
C7 RISE over the single square and over Grad-CAM
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmlens.papers.claims import Verdict
from mmlens.papers.maps.map_methods import (
    ABSENT,
    ATTN_LRP,
    CHANCE,
    CHEFER,
    EARLY,
    FAMILIES,
    GRAD_CAM,
    GRAD_ECLIP,
    GRADIENT,
    INTEGRATED,
    LATE,
    LENS,
    OCCLUSION,
    RISE,
    ROLLOUT,
    TAM,
)
from mmlens.papers.maps.maps_left_out import Why, told_left_out
from mmlens.papers.maps.questions.map_scores import CURVES
from mmlens.papers.study_folder import above, below, together, told_interval
from mmlens.papers.study_report import Part

Found = Mapping[tuple[str, str], Mapping[str, Any]]
"""The rows of a summary, by arm and metric."""
BETTER = {"deletion": below, "insertion": above, "energy": above}


@dataclass(frozen=True)
class Claim:
    """One claim, and which pairs of methods it compares by which measures.

    Attributes:
        pairs: the first of each is said to be ahead of the second.
        source: the papers.
    """

    title: str
    claim: str
    how: str
    pairs: tuple[tuple[str, str], ...]
    source: str
    metrics: tuple[str, ...] = CURVES


def _family(name: str, title: str, claim: str, how: str, source: str) -> Claim:
    return Claim(title, claim, how, tuple((one, CHANCE) for one in FAMILIES[name]), source)


CLAIMS: dict[str, Claim] = {
    "M1": _family(
        "attention", "Do maps of attention show what matters?",
        "Maps of attention order the patches better than random numbers",
        "Patterns of attention, multiplied through the layers: as they are (`rollout`), or with"
        " their gradient (`chefer`); of the language model, or on through the encoder.",
        "Abnar and Zuidema (2020), arXiv:2005.00928; Chefer, Gur and Wolf (2021), arXiv:2103.15679",
    ),
    "M2": _family(
        "gradients", "Do gradients?",
        "Maps of gradients order the patches better than random numbers",
        "Activations of the encoder's last layer times their gradient (`grad_cam`), values that"
        " attention could read times the gradient (`grad_eclip`), what the language model reads of"
        " the picture times the gradient there, or integrated from the mean (`attribute_picture`).",
        "Selvaraju et al. (2017), arXiv:1610.02391; Draelos and Carin (2020), arXiv:2011.08891;"
        " Zhao et al. (2024), arXiv:2502.18816; Sundararajan et al. (2017), arXiv:1703.01365",
    ),
    "M3": _family(
        "propagation", "Do shares that are propagated?",
        "Maps of relevance that is propagated order the patches better than random numbers",
        "Shares of the logit that are carried back, layer by layer, and add up (`lrp`).",
        "Achtibat et al. (2024), arXiv:2402.05602; Ali et al. (2022), arXiv:2202.07304",
    ),
    "M4": _family(
        "lenses", "Does what the patches say?",
        "Maps of what the patches themselves say order them better than random numbers",
        "The word, read at the picture's positions: at the end, less what earlier words explain"
        " (`tam`), or where it is most probable in any layer (`lens_map`).",
        "Li et al. (2025), arXiv:2506.23270; Jiang et al. (2025), arXiv:2410.02762",
    ),
    "M5": _family(
        "noise", "Does noise?",
        "Maps of noise in a late layer order the patches better than random numbers",
        "How far noise around a patch turns what one layer's attention writes (`noise_map`), two"
        " thirds up the layers. No word is in it.",
        "Chen et al. (2025), VisEdit, arXiv:2408.09916",
    ),
    "M6": _family(
        "covering", "Does covering itself?",
        "Maps of covering order the patches better than random numbers",
        "What is lost without a patch (`occlusion`), and in any company (`rise`). The curves cover,"
        " too, so that this is their own measure.",
        "Zeiler and Fergus (2014), arXiv:1311.2901; Petsiuk et al. (2018), arXiv:1806.07421",
    ),
    "C1": Claim(
        "Is attention better with its gradient?", "Chefer's relevance is ahead of rollout",
        "Both in the language model.", ((CHEFER, ROLLOUT),),
        "Chefer, Gur and Wolf (2021), arXiv:2103.15679",
    ),
    "C2": Claim(
        "Is propagation ahead of attention and gradients?",
        "AttnLRP is ahead of Chefer's relevance and of gradients",
        "Gradients are the plain one and the integrated one.",
        ((ATTN_LRP, CHEFER), (ATTN_LRP, GRADIENT), (ATTN_LRP, INTEGRATED)),
        "Achtibat et al. (2024), arXiv:2402.05602",
    ),
    "C3": Claim(
        "Is Grad-ECLIP ahead of those before it?",
        "Grad-ECLIP is ahead of rollout, Chefer's relevance and Grad-CAM",
        "The paper's model is a CLIP with a class token; here it is read as the paper reads a"
        " text.",
        ((GRAD_ECLIP, ROLLOUT), (GRAD_ECLIP, CHEFER), (GRAD_ECLIP, GRAD_CAM)),
        "Zhao et al. (2024), arXiv:2502.18816",
    ),
    "C4": Claim(
        "Does TAM lie on the thing?", "TAM lies more on the thing than rollout and Grad-CAM",
        "The paper claims to be ahead of existing methods, by masks (there the intersection over"
        " union, here the share of the map).",
        ((TAM, ROLLOUT), (TAM, GRAD_CAM)), "Li et al. (2025), arXiv:2506.23270", ("energy",),
    ),
    "C5": Claim(
        "Does the picture matter in late layers?",
        "Noise in a late layer is ahead of noise in an early one",
        "The paper finds that what matters of the picture is in middle and later layers.",
        ((LATE, EARLY),), "Chen et al. (2025), VisEdit, arXiv:2408.09916",
    ),
    "C6": Claim(
        "Does the lens find the word where the thing is?",
        "The lens's map of a word lies more on its thing than that of an absent word",
        "By the mask. The absent word is the name of a thing that is not in the picture.",
        ((LENS, ABSENT),), "Jiang et al. (2025), PROJECTAWAY, arXiv:2410.02762", ("energy",),
    ),
    "C7": Claim(
        "Is RISE ahead of single squares and of Grad-CAM?",
        "RISE is ahead of occlusion and Grad-CAM",
        "The first two cost tens of forward passes a picture.",
        ((RISE, OCCLUSION), (RISE, GRAD_CAM)), "Petsiuk et al. (2018), arXiv:1806.07421",
    ),
}  # fmt: skip
PAIRS = tuple(pair for one in CLAIMS.values() for pair in one.pairs)
_RULES = {
    CURVES: "it holds if, for every comparison, the interval of the difference in insertion lies"
    " above 0 and that in deletion below; it fails if one of them lies on the other side.",
    ("energy",): "it holds if, for every comparison, the interval of the difference lies above 0,"
    " and fails if one lies below.",
}
_WORDS = {True: "ahead", False: "behind", None: "not told apart"}


def asked_for(key: str, names: Sequence[str]) -> bool:
    """Whether both methods of one of a claim's pairs are among those that were chosen."""
    there = {*names, CHANCE, *([ABSENT] if LENS in names else [])}
    return any({*pair} <= there for pair in CLAIMS[key].pairs)


def judged(
    key: str,
    found: Found,
    names: Sequence[str],
    why: Why,
    costs: Mapping[str, float],
) -> Part:
    """The part of one claim.

    Args:
        found: of the summary, the rows of the pairs' differences among them.
        names: the methods that were chosen.
        why: what is left out.
        costs: by method, in forward passes.
    """
    one = CLAIMS[key]
    there = {*names, CHANCE, *([ABSENT] if LENS in names else [])}
    pairs = [pair for pair in one.pairs if {*pair} <= there]
    taken = [pair for pair in pairs if _measured(found, " - ".join(pair), one.metrics)]
    decided = {pair: ahead(found, pair, one.metrics) for pair in taken}
    notes = told_left_out((name for pair in pairs for name in pair), why, one.metrics)
    lines = [
        ["", *(f"{name}, difference" for name in one.metrics), "", "pictures", "cost in passes"]
    ]
    for pair, holds in decided.items():
        rows = [_row(found, pair, name) for name in one.metrics]
        cost = costs.get(pair[0], float("nan"))
        lines.append([
            " - ".join(pair), *map(told_interval, rows), _WORDS[holds],
            str(min(row["n"] for row in rows)), f"{cost:.0f}" if cost == cost else "",
        ])  # fmt: skip
    says = _said(found, decided, one.metrics)
    if not decided:
        every = dict.fromkeys(name for pair in pairs for name in pair)
        missing = "; ".join(name for name in every if not _measured(found, name, one.metrics))
        says = f"Not measured: no picture has {' and '.join(one.metrics)} of {missing}."
    verdict = Verdict(key, one.claim, together(*decided.values()) if decided else None, says)
    return Part(key, one.title, f"{one.how} {one.source}.", says, verdict, _RULES[one.metrics],
                table=lines if decided else (), notes=notes)  # fmt: skip


def ahead(found: Found, pair: tuple[str, str], metrics: Sequence[str] = CURVES) -> bool | None:
    """Whether the first of a pair is ahead of the second by all of these measures."""
    return together(*(BETTER[name](_row(found, pair, name)) for name in metrics))


def _measured(found: Found, arm: str, metrics: Sequence[str]) -> bool:
    return all((arm, name) in found for name in metrics)


def _row(found: Found, pair: tuple[str, str], metric: str) -> Mapping[str, Any]:
    """The difference of a pair; of no picture where there is none."""
    nothing = {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    return found.get((" - ".join(pair), metric), nothing)


def _said(
    found: Found, decided: Mapping[tuple[str, str], bool | None], metrics: Sequence[str]
) -> str:
    """Who is ahead of random numbers, or how far pairs of methods are apart, in a sentence."""
    if {pair[1] for pair in decided} == {CHANCE}:
        named = {holds: "; ".join(pair[0] for pair, one in decided.items() if one is holds)
                 for holds in (True, False, None)}  # fmt: skip
        heads = {True: "Ahead of random numbers", False: "Behind them on a curve",
                 None: "Not told apart on both"}  # fmt: skip
        return " ".join(f"{heads[holds]}: {names}." for holds, names in named.items() if names)
    told = []
    for pair in decided:
        rows = {name: _row(found, pair, name) for name in metrics}
        each = " and ".join(f"{told_interval(row)} in {name}" for name, row in rows.items())
        n = min(row["n"] for row in rows.values())
        told.append(f"{pair[0]} less {pair[1]}: {each}, in {n} pictures.")
    return " ".join(told)
