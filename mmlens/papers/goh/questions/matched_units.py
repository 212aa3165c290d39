"""Units that answer to a concept in every format, and the matched units of another encoder.

The pictures of each concept and format are divided into two halves.

1. On the first half, every concept gets the unit of the largest cross-format index (the least z
   over formats, `mmlens.methods.cross_format`). The concepts of the largest indices are judged.
2. On the second half, the index of that one unit is measured anew, with its interval: a choice
   among many units cannot raise it.
3. The *matched unit* is the other encoder's unit for the same concept, chosen on the same pictures
   in the same way.
4. The *bar* is what chance gives: concepts are mixed up between formats (the drawing of one, the
   symbol of another, the word of a third), and steps 1 and 2 are repeated for all of them. It is
   the largest index of any of them, the 95th percentile of `ROUNDS` draws. A unit that answers to
   many things answers to some such mixture as well, so an index above 0 alone says little.

A unit passes where the interval of its index lies above 0 (distractors), above the bar, and above
the interval of the matched unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmlens.methods.cross_format import cross_format_index

Responses = Mapping[str, Mapping[str, np.ndarray]]
"""Format -> concept -> Float[picture, unit]."""
ROUNDS, LEVEL = 20, 0.95
_TOLD = ("z", "z_low", "z_high", "auroc", "auroc_low", "auroc_high", "weakest", "p")


def half(responses: Responses, which: int) -> dict[str, dict[str, np.ndarray]]:
    """Every second picture, from the first (0) or from the second (1)."""
    return {f: {c: rows[which::2] for c, rows in own.items()} for f, own in responses.items()}


def z_by_format(responses: Responses) -> np.ndarray:
    """Float[format, concept, unit]: how far pictures of a concept exceed those of the others.

    In standard deviations of all pictures of the format.
    """
    parts = []
    for own in responses.values():
        sums = np.stack([rows.sum(0, dtype=np.float64) for rows in own.values()])
        counts = np.array([len(rows) for rows in own.values()])[:, None]
        rest = (sums.sum(0) - sums) / (counts.sum() - counts)
        spread = np.concatenate(list(own.values())).std(0)
        parts.append((sums / counts - rest) / np.maximum(spread, 1e-12))
    return np.stack(parts)


def matched_units(
    own: Responses,
    other: Responses | None = None,
    *,
    judged: int = 12,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per judged concept, the largest index of the first half first.

    Columns: concept, unit, z, z_low, z_high, auroc, auroc_low, auroc_high, weakest, p, `z FORMAT`;
    with another encoder other_unit, other_z, ...; bar; passes.

    Args:
        own, other: responses of the two encoders to the same pictures.
        judged: so many concepts, at most.
        draws: of bootstrap and permutations.
    """
    names = list(next(iter(own.values())))
    first, second = (z_by_format(half(own, which)) for which in (0, 1))
    index, bar = first.min(0), chance_bar(first, second, seed)
    theirs = None if other is None else z_by_format(half(other, 0)).min(0)
    rows = []
    for place in np.argsort(-index.max(1), kind="stable")[:judged].tolist():
        name, unit = names[place], int(index[place].argmax())
        row = {"concept": name, "unit": unit} | _judged(own, name, unit, draws, seed)
        above = max(0.0, bar)
        if other is not None and theirs is not None:
            rival = int(theirs[place].argmax())
            found = _judged(other, name, rival, draws, seed)
            row |= {"other_unit": rival} | {f"other_{key}": found[key] for key in _TOLD}
            above = max(above, found["z_high"])
        rows.append(row | {"bar": bar, "passes": bool(row["z_low"] > above)})
    return pd.DataFrame(rows)


def chance_bar(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """The largest index that concepts mixed up between formats reach (point 4 above).

    Args:
        first, second: `z_by_format` of the two halves.
    """
    rng, (formats, n, _), largest = np.random.default_rng(seed), first.shape, []
    for _ in range(ROUNDS):
        order = np.stack([rng.permutation(n) for _ in range(formats)])[..., None]
        chosen = np.take_along_axis(first, order, 1).min(0).argmax(1)
        judged = np.take_along_axis(second, order, 1).min(0)
        largest.append(judged[np.arange(n), chosen].max())
    return float(np.quantile(largest, LEVEL))


def _judged(responses: Responses, concept: str, unit: int, draws: int, seed: int) -> dict[str, Any]:
    """The index of one unit on the second half."""
    pairs = {}
    for name, own in half(responses, 1).items():
        rest = np.concatenate([rows for other, rows in own.items() if other != concept])
        pairs[name] = (own[concept][:, [unit]], rest[:, [unit]])
    row: Any = cross_format_index(pairs, draws=draws, seed=seed).iloc[0]
    return {key: row[key] for key in (*_TOLD, *(f"z {name}" for name in responses))}
