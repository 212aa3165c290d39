"""Means over pairs, each with an interval and a paired test.

    moved = patch(model, thing_pairs(model, data), "logit", "z", pos=-1)
    other = patch(model, thing_pairs(model, data, control=True), "logit", "z", pos=-1)
    means(moved)                    # the effect of each head: layer and head, mean, low, high, p
    means(moved, control=other)     # beyond that of erasing as much ground

The effect in a pair is the metric with a patch less the metric without it (the corrupt run in
"denoise", the clean one in "noise" and where a part is removed). Pairs are drawn with replacement,
all places of one pair together (`tally.intervals`, bootstrap-t); p is Wilcoxon's signed-rank test
over pairs, and `p_holm` is corrected for how many places the table has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.causal.many_pairs import ends, side_by_side
from mmlens.tally.intervals import DRAWS, LEVEL, intervals
from mmlens.tally.paired import holm, signed_ranks
from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError
from mmlens.values.labels import LM, Head, Neuron
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 256
"""Places whose draws are in memory at a time."""


def means(
    scores: Scores | Mapping[str, Scores],
    control: Scores | Mapping[str, Scores] | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """The mean effect at every place, the largest first.

    Args:
        scores: what a causal verb gives of several pairs, or the Scores of each pair by name, as
            `dict(sweep.each("patch"))` reads them.
        control: the same of as many control pairs, in their order: its effect is subtracted, pair
            by pair.
        level: of the intervals.

    Returns:
        The axes as columns (layer and head, or unit, as one Head or Neuron), mean, low, high, p,
        p_holm, n (pairs).

    Raises:
        AddressError: no axis `pair`, or a control of other pairs or places.
    """
    import pandas as pd

    scores = _together(scores, "scores")
    found = _effects(scores)
    if control is not None:
        control = _together(control, "control")
        _check_alike(scores, control)
        found = found - _effects(control)
    values = found.reshape(len(found), -1)
    parts = [
        intervals(values[:, at : at + _AT_ONCE], level=level, draws=draws, seed=seed)
        for at in range(0, values.shape[1], _AT_ONCE)
    ]
    mean, low, high = np.concatenate(parts).T
    p = signed_ranks(values)
    places = Scores(scores.values[0], scores.axes[1:], dict(scores.labels)).to_frame(name="mean")
    table = _with_units(places, scores).assign(
        mean=mean, low=low, high=high, p=p, p_holm=holm(p.tolist()), n=len(found)
    )
    order = np.argsort(-mean, kind="stable")
    table = pd.DataFrame(table).iloc[order].reset_index(drop=True)
    table.attrs["about"] = dict(scores.about)
    return table


def effects(scores: Scores) -> Scores:
    """The change of the metric by each patch, in every pair: Scores of the same places."""
    instance(scores, "scores", Scores, "what a causal verb gives")
    return scores.with_values(scores.values.new_tensor(_effects(scores)), quantity="effect")


def _together(given: Any, name: str) -> Scores:
    if isinstance(given, Mapping):
        given = side_by_side(list(given.values()), list(given)) if given else None
    scores = instance(given, name, Scores, "what a causal verb gives of a list of pairs")
    if scores.axes[:1] != ("pair",):
        raise AddressError(
            f"{scores!r} are of one pair: give a list of pairs to the verb, as in"
            " patch(model, [pair, other], metric)."
        )
    return scores


def _effects(scores: Scores) -> np.ndarray:
    """Float[pair, ...]: what changed, where the scores are not changes already."""
    about, values = scores.about, scores.values.float().cpu()
    if about.get("quantity") == "effect" or about.get("method") == "attribution_patching":
        return values.numpy()
    if about.get("quantity") == "recovered":
        return (values - (1.0 if about.get("direction") == "noise" else 0.0)).numpy()
    base = "corrupt" if about.get("direction") == "denoise" else "clean"
    return (values - ends(scores, base)).numpy() if base in about else values.numpy()


def _check_alike(scores: Scores, control: Scores) -> None:
    alike = scores.axes == control.axes and scores.shape == control.shape
    for axis in scores.axes if alike else ():
        one, other = scores.labels.get(axis), control.labels.get(axis)
        alike = alike and (one is None or other is None or list(one) == list(other))
    if not alike:
        raise AddressError(
            f"{control!r} is no control of {scores!r}: it has other pairs or other places."
        )


def _with_units(table: Any, scores: Scores) -> Any:
    """Columns layer and head (or unit) as one column of Heads (or Neurons)."""
    tower = str(scores.about.get("tower", LM))
    for name, kind in (("head", Head), ("unit", Neuron)):
        if {"layer", name} <= set(table.columns) and not isinstance(table[name].iloc[0], kind):
            units = [kind(*at, tower) for at in zip(table["layer"], table[name], strict=True)]
            column = "head" if kind is Head else "neuron"
            rest = table.drop(columns=["layer", name])
            rest.insert(0, column, units)
            return rest
    return table
