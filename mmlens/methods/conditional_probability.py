"""Conditional probability of labels given a unit's activation, and of its activation given labels.

The protocol of Goh et al. (2021, appendix): buckets of one width from the most inhibitory to the
most excitatory activation, pictures of each bucket labelled by somebody who does not see the
activation, and for every bucket the share of each label: P(label | activation). It shows how
precise a unit is, not how much of a concept it finds; that is what the other direction says, the
activations of all pictures of a label. The axis of both is the activation in standard deviations
*from zero* (not from the mean).

`to_label` draws which pictures to label; `label_given_activation` and `activation_given_label` are
tables, which `mmlens.view.conditional` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.methods.typographic_attack import share_interval
from mmlens.values.arguments import count, number, several, text
from mmlens.values.errors import ArgumentError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd


def to_label(
    activations: Any, each: int = 20, *, buckets: int = 9, seed: int = 0
) -> dict[int, list[int]]:
    """Which pictures to label: per bucket, from the lowest, up to `each` of its pictures at random.

    Args:
        activations: Float[picture], of one unit.
        each: pictures per bucket.
        buckets: how many of one width.
    """
    values = _values(activations)
    many, n = count(each, "each"), count(buckets, "buckets", most=10_000)
    place, rng = _bucket(values, n)[0], np.random.default_rng(count(seed, "seed", least=0))
    return {
        bucket: sorted(rng.permutation(np.flatnonzero(place == bucket))[:many].tolist())
        for bucket in range(n)
    }


def label_given_activation(
    activations: Any, labels: Sequence[str], *, buckets: int = 9, sd: float | None = None
) -> pd.DataFrame:
    """P(label | bucket): start and end (in SD from zero), label, probability, low, high, n.

    Buckets in which no picture was labelled have no rows. Intervals are exact (Clopper & Pearson).

    Args:
        activations: Float[picture], of one unit.
        labels: of each picture.
        buckets: how many of one width, from the least to the largest activation.
        sd: of the unit over data that it was not chosen on; by default over these activations.

    Raises:
        ArgumentError: not as many labels as activations, or activations that never differ.
    """
    import pandas as pd

    values, named, unit = _given(activations, labels, sd)
    place, edges = _bucket(values, count(buckets, "buckets", most=10_000))
    rows = []
    for bucket in np.unique(place):
        here = named[place == bucket]
        for label in dict.fromkeys(named.tolist()):
            hits = int((here == label).sum())
            low, high = share_interval(hits, len(here))
            rows.append((edges[bucket] / unit, edges[bucket + 1] / unit, label, hits / len(here),
                         low, high, len(here)))  # fmt: skip
    return pd.DataFrame(rows, columns=["start", "end", "label", "probability", "low", "high", "n"])


def activation_given_label(
    activations: Any, labels: Sequence[str], *, sd: float | None = None
) -> pd.DataFrame:
    """The activations of each label, in SD from zero: label, median, spread, low, high, n.

    The largest median first. `spread` is the standard deviation over the label's pictures, `low`
    and `high` the 5th and 95th percentile.

    Args:
        activations, labels, sd: as in `label_given_activation`.
    """
    import pandas as pd

    values, named, unit = _given(activations, labels, sd)
    rows = []
    for label in dict.fromkeys(named.tolist()):
        own = values[named == label] / unit
        spread = float(own.std(ddof=1)) if len(own) > 1 else float("nan")
        low, high = np.percentile(own, (5, 95))
        rows.append((label, float(np.median(own)), spread, low, high, len(own)))
    table = pd.DataFrame(rows, columns=["label", "median", "spread", "low", "high", "n"])
    return table.sort_values("median", ascending=False, kind="stable", ignore_index=True)


def _bucket(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The bucket of each activation, and the edges of all."""
    edges = np.linspace(values.min(), values.max(), n + 1)
    if edges[0] == edges[-1]:
        raise ArgumentError(f"All activations are {edges[0]:g}: give some that differ.")
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n - 1), edges


def _given(activations: Any, labels: Any, sd: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Activations, labels, and the standard deviation that is the axis' unit."""
    values = _values(activations)
    named = [text(one, "labels", empty=False) for one in several(labels, "labels")]
    if len(named) != len(values):
        raise ArgumentError(f"{len(values)} activations and {len(named)} labels: give as many.")
    unit = float(values.std()) if sd is None else number(sd, "sd", above=0)
    if unit == 0:
        raise ArgumentError(f"All activations are {values[0]:g}: give sd=, or some that differ.")
    return values, np.array(named, dtype=object), unit


def _values(activations: Any) -> np.ndarray:
    """Float[picture]."""
    if isinstance(activations, Scores):
        values = activations.numpy().astype(float)
    else:
        values = np.array([number(v, "activations") for v in several(activations, "activations")])
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ArgumentError(
            f"activations of shape {values.shape}: give one number per picture, of one unit, as in"
            " unit_responses(model, pictures).sel(unit=17)."
        )
    return values
