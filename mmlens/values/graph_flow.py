"""How much of a graph's end comes through each node: shares of edges, handed back along all paths.

An edge into t has the share |E[s, t]| / sum over s' of |E[s', t]| of what enters t, and a node's
influence is the sum over all paths from it to the end of the products of shares: with A the matrix
of shares, the row of A + A^2 + A^3 + ... of the end (Ameisen et al. 2025, Circuit Tracing, graph
pruning). Influence is handed back without loss, so that what arrives where paths begin sums to 1.

Effects keep their sign: that of s is the sum over t of E[s, t] effect[t] / a[t], with a[t] the sum
of all that enters t. Where paths begin they sum to the number at the end, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Flow:
    """Influence and effects.

    Attributes:
        influence: Float[node], 1 at the end.
        effect: Float[node], the end's number there.
        through: Float[edge], the influence that an edge hands back.
    """

    influence: np.ndarray
    effect: np.ndarray
    through: np.ndarray


def flow(
    source: np.ndarray,
    target: np.ndarray,
    score: np.ndarray,
    size: np.ndarray,
    stage: np.ndarray,
    end: int,
) -> Flow:
    """Influence and effect of every node on the node `end`.

    Args:
        source, target: Int[edge], numbers of nodes.
        score: Float[edge], signed. size: Float[edge], what shares are taken of.
        stage: Int[node]; an edge leads from a lower stage to a higher one.
    """
    n = len(stage)
    enters, value = np.bincount(target, size, n), np.bincount(target, score, n)
    influence, effect, through = np.zeros(n), np.zeros(n), np.zeros(len(source))
    influence[end], effect[end] = 1.0, value[end]
    for edges in _stages(target, stage):
        at, back = target[edges], source[edges]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(enters[at] > 0, size[edges] / enters[at], 0.0)
            gain = np.where(value[at] != 0, effect[at] / value[at], 0.0)
        through[edges] = influence[at] * share
        np.add.at(influence, back, through[edges])
        np.add.at(effect, back, gain * score[edges])
    return Flow(influence, effect, through)


def most_of(amount: np.ndarray, share: float) -> np.ndarray:
    """Bool[...]: the fewest entries, the largest first, that sum to a share of all."""
    order = np.argsort(-amount, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(amount[order])[:-1]])
    kept = np.zeros(len(amount), bool)
    kept[order] = (before < share * amount.sum()) & (amount[order] > 0)
    return kept


def _stages(target: np.ndarray, stage: np.ndarray) -> Iterator[np.ndarray]:
    """The edges into each stage, from the end back."""
    into = stage[target]
    for one in np.unique(into)[::-1]:
        yield np.flatnonzero(into == one)
