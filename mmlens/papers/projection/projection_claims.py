"""The paper's claims, judged from what probes name of pictures that they were not fitted on.

P1 before    what a picture shows can be read off the encoder's features
P2 behind    and off the soft prompt
P3 nothing   the projection adds nothing to it
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mmlens.methods.projection_probe import PLACES, left_out
from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.study_folder import above, below, by_arm, told_interval
from mmlens.papers.study_report import Part

FEATURES, SOFT = PLACES
SHUFFLED = "{}, labels shuffled"
NOTHING = 0.05
"""A gain of less than a twentieth of the pictures counts as nothing."""
CLAIMS = {
    "P1": "What a picture shows can be read off the encoder's features",
    "P2": "It can be read off the soft prompt",
    "P3": "The projection adds nothing to it",
}
TITLES = {
    "P1": "Can it be read before the projection?",
    "P2": "Can it be read behind it?",
    "P3": "Does the projection add to it?",
}
_HOW = (
    "A logistic regression of the mean over the picture's positions names the thing of pictures"
    " that it was not fitted on"
)
HOW = {
    "P1": f"{_HOW}; for comparison, one of labels that are shuffled among the pictures.",
    "P2": f"{_HOW}; for comparison, one of labels that are shuffled among the pictures.",
    "P3": f"{_HOW}, behind the projection and before it. Where the projection is linear and keeps"
    " all dimensions, a linear probe can only lose, and little.",
}
PAIRS = {"P1": (FEATURES, SHUFFLED.format(FEATURES)), "P2": (SOFT, SHUFFLED.format(SOFT)),
         "P3": (SOFT, FEATURES)}  # fmt: skip


def richness(
    vectors: Mapping[str, Tensor], things: Tensor, *, folds: int, l2: float, seed: int
) -> pd.DataFrame:
    """sample (the picture's number), arm, metric "share", value: whether the probe names its thing.

    Args:
        vectors: by place, Float[picture, dim].
        things: Int[picture].
        folds, l2, seed: as in `projection_probe`.
    """
    draw = torch.Generator().manual_seed(seed)
    part = torch.randperm(len(things), generator=draw) % folds
    mixed = things[torch.randperm(len(things), generator=draw)]
    rows = []
    for place, x in vectors.items():
        for arm, target in ((place, things), (SHUFFLED.format(place), mixed)):
            said = left_out(x, target, part, int(things.max()) + 1, l2)
            rows += [{"sample": str(at), "arm": arm, "metric": "share", "value": float(right)}
                     for at, right in enumerate(said == target)]  # fmt: skip
    return pd.DataFrame(rows)


def contest(rows: pd.DataFrame) -> Contest:
    """Both places, against shuffled labels."""
    return Contest(
        "What can be read off a picture's vectors?",
        "the share of pictures whose thing a linear probe names",
        rows,
        {place: SHUFFLED.format(place) for place in PLACES},
        control="labels shuffled",
        within=(0.0, 1.0),
    )


def judged(key: str, rows: pd.DataFrame, **how: Any) -> Part:
    """The part of one claim.

    Args:
        rows: of `richness`.
        how: draws and seed of the bootstrap.
    """
    one, other = PAIRS[key]
    found: Any = summarise(with_differences(rows, (one, other)), ["arm", "metric"], **how)
    each = by_arm(found)
    gap = each[f"{one} - {other}"]
    says = (
        f"The probe of the {one} names {told_interval(each[one])} of the things, that of the"
        f" {other} {told_interval(each[other])}: a difference of {told_interval(gap)}, in"
        f" {gap['n']} pictures."
    )
    holds = _nothing(gap, each[other]) if key == "P3" else above(gap)
    told = [Row(arm, told_interval(row)) for arm, row in each.items()]
    more: dict[str, Any] = {"rows": told, "summary": found.drop(columns="metric")}
    if key == "P3":
        more["notes"] = [_room(each[other])]
        arms = {arm: arm for arm in each if " - " not in arm}
        shown = found.assign(panel="named")
        more["draw"] = partial(strips, shown, arms, "Share of things that a probe names",
                               "with 95 % intervals")  # fmt: skip
    verdict = Verdict(key, CLAIMS[key], holds, says)
    return Part(key, TITLES[key], HOW[key], says, verdict, _rule(key), **more)


def _nothing(gap: Mapping[str, Any], before: Mapping[str, Any]) -> bool | None:
    """P3: a gain is below the bound, where a gain of that size was possible."""
    return below(gap, NOTHING) if 1 - before["mean"] > NOTHING else None


def _room(before: Mapping[str, Any]) -> str:
    return (
        f"The {FEATURES} leave {1 - before['mean']:.2f} of the pictures to be gained; no projection"
        " could add more."
    )


def _rule(key: str) -> str:
    one, other = PAIRS[key]
    if key == "P3":
        return (
            f"it holds if the interval of ({one} - {other}) lies below {NOTHING}, and fails if it"
            f" lies above; where the {other} leave no more than {NOTHING} to be gained, it could"
            " not fail, and is undecided."
        )
    return (
        f"it holds if the interval of ({one} - {other}) lies above 0, and fails if it lies below."
    )
