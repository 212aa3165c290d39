"""How strongly concepts are associated with groups: effect sizes, intervals, permutation tests.

Of a stimulus x of a group and a concept C, with e the embedding less its mean over all stimuli of
the same kind (without which two written words are alike for being black on white: Goh et al. 2021
measure .98, and .52 with the mean taken out)

    s(x, C) = mean over stimuli c of C of cos(e(x), e(c))
    d(C, G) = (mean of s over G - mean of s over the other groups) / SD of s over all of them

which is the effect size of Caliskan et al. (2017, eq. 3), one concept at a time. p: the share of
random dealings of the groups' names to the stimuli in which |d| is as large. Intervals: stimuli of
the group and of the others are drawn anew (percentile bootstrap). A list of tests is corrected
after Holm (1979).

Units: a unit associates C with G when it answers to both, C against the other concepts and G
against the other groups. So its score is the lesser of the two z and its p the larger of the two,
corrected for all units (`mmlens.methods.cross_format`), and for all pairs after Holm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmlens.methods.cross_format import cross_format_index
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.comparisons import holm
from mmlens.values.arguments import count

_AT_ONCE = 1000
"""Permutations that are held at once."""
Vectors = Mapping[str, np.ndarray]
"""Name -> Float[stimulus, dim]."""


def associations(
    groups: Vectors, concepts: Vectors, *, same: bool, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """One row per concept and group: concept, group, d, d_low, d_high, p, n, n_others.

    Args:
        groups, concepts: embeddings of their stimuli.
        same: whether both are of one kind (pictures, say), so that one mean is taken out of both.
        draws: permutations, and draws of the bootstrap.
    """
    draws = count(draws, "draws", most=MOST)
    rng = np.random.default_rng(count(seed, "seed", least=0))
    every, words = np.concatenate(list(groups.values())), np.concatenate(list(concepts.values()))
    both = np.concatenate([every, words]).mean(0)
    x = _unit(every - (both if same else every.mean(0)))
    middle = both if same else words.mean(0)
    sizes = [len(own) for own in groups.values()]
    of = np.repeat(np.arange(len(sizes)), sizes)
    rows = []
    for concept, own in concepts.items():
        s = x @ _unit(own - middle).mean(0)
        for i, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            d, low, high, p = effect(s, of == i, draws, rng)
            rows.append({"concept": concept, "group": group, "d": d, "d_low": low, "d_high": high,
                         "p": p, "n": size, "n_others": len(s) - size})  # fmt: skip
    return pd.DataFrame(rows)


def effect(
    s: np.ndarray, mine: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """d of the members against the rest, its 95 % interval, and the two-sided permutation p.

    Args:
        s: Float[stimulus], associations with one concept.
        mine: Bool[stimulus], which are of the group.
    """
    spread = s.std()
    if spread < 1e-12:
        return 0.0, 0.0, 0.0, 1.0
    n = int(mine.sum())
    gap = s[mine].mean() - s[~mine].mean()
    beyond = 0
    for start in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - start)
        order = rng.permuted(np.tile(s, (rows, 1)), axis=1)
        dealt = order[:, :n].mean(1) - order[:, n:].mean(1)
        beyond += int((np.abs(dealt) >= abs(gap) - 1e-12).sum())
    p = (1 + beyond) / (draws + 1)
    drawn = _drawn(s[mine], s[~mine], draws, rng)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(gap / spread), float(low), float(high), p


def _drawn(one: np.ndarray, other: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """d in samples drawn anew within the group and within the others."""
    sets = [own[rng.integers(len(own), size=(draws, len(own)))] for own in (one, other)]
    spread = np.concatenate(sets, 1).std(1)
    gap = sets[0].mean(1) - sets[1].mean(1)
    return np.where(spread > 1e-12, gap / np.maximum(spread, 1e-12), 0.0)


def unit_associations(
    groups: Vectors, concepts: Vectors, *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The unit that answers most to both, per concept and group.

    Columns: concept, group, unit, z, z_low, z_high, auroc, p, p_family (corrected for all units),
    units (how many have p_family of at most .05).

    Args:
        groups, concepts: Float[stimulus, unit], responses.
    """
    rows = []
    for concept in concepts:
        for group in groups:
            both = {"concept": _against(concepts, concept), "group": _against(groups, group)}
            table: Any = cross_format_index(both, draws=draws, seed=seed)
            first = table.sort_values(["p_family", "z"], ascending=[True, False]).iloc[0]
            named = ("z", "z_low", "z_high", "auroc", "p", "p_family")
            rows.append({"concept": concept, "group": group, "unit": int(first["unit"]),
                         **{name: float(first[name]) for name in named},
                         "units": int((table["p_family"] <= 0.05).sum())})  # fmt: skip
    return pd.DataFrame(rows)


def corrected(table: pd.DataFrame, p: str) -> pd.DataFrame:
    """The table with a column p_holm, corrected for all of its rows."""
    return table.assign(p_holm=holm(table[p].tolist()))


def visible(n: int, others: int) -> float:
    """The effect that a test of these sizes finds four times out of five, at p = .05, one test."""
    return 2.8 * float(np.sqrt(1 / n + 1 / others))


def _against(shown: Vectors, name: str) -> tuple[np.ndarray, np.ndarray]:
    return shown[name], np.concatenate([own for other, own in shown.items() if other != name])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
