"""Taking up nodes of a graph one after another, from the word back.

The influence on the word is handed back along edges (`graph_flow`); at a unit that has not been
taken up it stops. Units where most of it stopped are taken up next, several in one backward pass,
until no more than a share of it stops at units. Of each row only the largest entries are kept, and
the sum of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmlens.methods.linear_replacement import LinearReplacement
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.graph_flow import flow
from mmlens.values.graph_tables import UNIT

WIDTH = 8192
"""Entries of a row that are kept, the largest."""


@dataclass(frozen=True)
class Entering:
    """What enters one node.

    Attributes:
        source: Int[entry], candidates. score: Float[entry].
        rest, rest_size: the sums of the entries that were not kept, signed and of sizes.
        biases, value: of the node.
    """

    source: np.ndarray
    score: np.ndarray
    rest: float
    rest_size: float
    biases: float
    value: float


@dataclass(frozen=True)
class Followed:
    """The nodes that were taken up, each with its row; the first is the word."""

    rows: dict[int, Entering]


def followed_back(
    net: LinearReplacement, share: float, k: int, progress: Progress | bool | None = None
) -> Followed:
    """The word and at most `k` units with what enters them.

    Args:
        share: no more than 1 - share of the influence is to stop at units that are left out.
    """
    found: dict[int, Entering] = dict.fromkeys([net.size])  # type: ignore[assignment]
    found.update(_rows(net, [net.size]))
    bar = iter(tracked(range(k), "attribution_graph", progress))
    while (more := k + 1 - len(found)) > 0:
        waiting, influence = _waiting(net, found)
        if not len(waiting) or influence.sum() <= (1 - share) * (1 + 1e-9):
            break
        best = waiting[np.argsort(-influence, kind="stable")][: min(more, net.at_once())]
        found.update(_rows(net, best.tolist()))
        for _ in best:
            next(bar, None)
    return Followed(found)


def _rows(net: LinearReplacement, targets: list[int]) -> dict[int, Entering]:
    rows = net.rows(targets)
    best = rows.direct.abs().topk(min(WIDTH, rows.direct.shape[1]), dim=1).indices
    score = rows.direct.gather(1, best).double().cpu().numpy()
    size, whole = rows.direct.abs().double().sum(1).tolist(), rows.direct.double().sum(1).tolist()
    found = {}
    for i, target in enumerate(targets):
        there = score[i] != 0
        all_kept = rows.direct.shape[1] <= WIDTH
        own: Any = score[i][there]
        found[target] = Entering(
            best[i].cpu().numpy()[there], own,
            0.0 if all_kept else whole[i] - float(own.sum()),
            0.0 if all_kept else max(0.0, size[i] - float(np.abs(own).sum())),
            float(rows.biases[i]), float(rows.value[i]),
        )  # fmt: skip
    return found


def _waiting(net: LinearReplacement, found: dict[int, Entering]) -> tuple[np.ndarray, np.ndarray]:
    """Units that influence stops at, and how much of it."""
    targets = np.fromiter(found, int)
    long = np.array([len(row.source) for row in found.values()])
    source = np.concatenate([row.source for row in found.values()])
    score = np.concatenate([row.score for row in found.values()])
    # what was not kept of a row, as a node of its own before all others
    nodes = np.unique(np.concatenate([source, targets, [-1]]))
    source = np.concatenate([source, np.full(len(targets), -1)])
    score = np.concatenate([score, [row.rest_size for row in found.values()]])
    target = np.concatenate([np.repeat(targets, long), targets])
    starts = np.array([part.first for part in net.parts] + [net.size])
    stage = np.searchsorted(starts, nodes, side="right")
    source, target = np.searchsorted(nodes, source), np.searchsorted(nodes, target)
    end = int(np.searchsorted(nodes, net.size))
    influence = flow(source, target, score, np.abs(score), stage, end).influence
    units = np.array([part.kind == UNIT for part in net.parts] + [False])
    here = (nodes >= 0) & ~np.isin(nodes, targets) & units[np.maximum(stage - 1, 0)]
    here &= influence > 0
    return nodes[here], influence[here]
