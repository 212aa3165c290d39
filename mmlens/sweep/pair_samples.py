"""Pairs as the data of a sweep: causal verbs over many pairs, kept on disk and resumable.

sweep(patching.patch, model, pairs, "runs/heads", options={"metric": "logit", "site": "z"})
patching.means(dict(mm.Sweep("runs/heads").each("patch")))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmlens.causal.pairs import Pair
from mmlens.datasets.sample import Sample, Samples
from mmlens.datasets.spec import dataset
from mmlens.sweep.identity import Identity


@dataclass(frozen=True, eq=False)
class PairSample(Sample):
    """A pair in the place of a sample; the question is asked of the pair."""

    pair: Pair | None = None


def asked_of(data: Any) -> Samples:
    """The data set of a sweep: samples as `mmlens.dataset` reads them, or a list of pairs.

    Pairs are called by their names, or by their numbers where two have none of their own.
    """
    if not isinstance(data, (list, tuple)) or not all(isinstance(one, Pair) for one in data):
        return dataset(data)
    pairs: list[Any] = list(data)
    names = [pair.name for pair in pairs]
    named = all(names) and len(set(names)) == len(names)
    ids = names if named else [str(at) for at in range(len(pairs))]
    samples = [PairSample(name, None, pair=pair) for name, pair in zip(ids, pairs, strict=True)]
    return Samples("pairs", ids, samples.__getitem__, Identity().of(pairs, "the pairs"))
