"""Units that answer to a concept in every format, and the matched units of another encoder.

The pictures of each concept and format are divided into two halves.

1. On the first half, every concept gets the unit of the largest cross-format index (the least z
   over formats, `mmlens.methods.cross_format`). The concepts of the largest indices are judged.
2. On the second half, the index of that one unit is measured anew, with its interval: a choice
   among many units cannot raise it.
3. The *matched unit* is the other encoder's unit for the same concept, chosen on the same pictures
   in the same way. A unit passes where the interval of its index lies above 0 (distractors) and
   above the interval of the matched unit.

What chance would do is measured, too: concepts are mixed up between formats (the drawing of one,
the symbol of another, the word of a third), and all steps are repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmlens.methods.cross_format import cross_format_index

Responses = Mapping[str, Mapping[str, np.ndarray]]
"""Format -> concept -> Float[picture, unit]."""
_TOLD = ("z", "z_low", "z_high", "auroc", "auroc_low", "auroc_high", "weakest", "p")


def half(responses: Responses, which: int) -> dict[str, dict[str, np.ndarray]]:
    """Every second picture, from the first (0) or from the second (1)."""
    return {f: {c: rows[which::2] for c, rows in own.items()} for f, own in responses.items()}


def least_z(responses: Responses) -> tuple[list[str], np.ndarray]:
    """The concepts, and Float[concept, unit]: the least z over formats.

    The standard deviation is that of all pictures of a format.
    """
    parts, names = [], list(next(iter(responses.values())))
    for own in responses.values():
        sums = np.stack([own[name].sum(0, dtype=np.float64) for name in names])
        counts = np.array([len(own[name]) for name in names])[:, None]
        rest = (sums.sum(0) - sums) / (counts.sum() - counts)
        spread = np.concatenate([own[name] for name in names]).std(0, dtype=np.float64)
        parts.append((sums / counts - rest) / np.maximum(spread, 1e-12))
    return names, np.min(parts, axis=0)


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
    with another encoder other_unit, other_z, ...; passes.

    Args:
        own, other: responses of the two encoders to the same pictures.
        judged: so many concepts, at most.
        draws: of bootstrap and permutations.
    """
    names, index = least_z(half(own, 0))
    theirs = None if other is None else least_z(half(other, 0))[1]
    rows = []
    for place in np.argsort(-index.max(1), kind="stable")[:judged].tolist():
        name, unit = names[place], int(index[place].argmax())
        row = {"concept": name, "unit": unit} | _judged(own, name, unit, draws, seed)
        above = 0.0
        if other is not None and theirs is not None:
            rival = int(theirs[place].argmax())
            found = _judged(other, name, rival, draws, seed)
            row |= {"other_unit": rival} | {f"other_{key}": found[key] for key in _TOLD}
            above = max(above, found["z_high"])
        rows.append(row | {"passes": bool(row["z_low"] > above)})
    return pd.DataFrame(rows)


def mixed_up(several: Sequence[Responses], seed: int = 0) -> list[dict[str, dict[str, Any]]]:
    """The same responses with the concepts of each format renamed at random, alike for all."""
    rng = np.random.default_rng(seed)
    names = list(next(iter(several[0].values())))
    orders = {name: rng.permutation(len(names)) for name in several[0]}
    return [
        {f: {names[i]: own[names[j]] for i, j in enumerate(orders[f])} for f, own in one.items()}
        for one in several
    ]


def _judged(responses: Responses, concept: str, unit: int, draws: int, seed: int) -> dict[str, Any]:
    """The index of one unit on the second half."""
    pairs = {}
    for name, own in half(responses, 1).items():
        rest = np.concatenate([rows for other, rows in own.items() if other != concept])
        pairs[name] = (own[concept][:, [unit]], rest[:, [unit]])
    row: Any = cross_format_index(pairs, draws=draws, seed=seed).iloc[0]
    return {key: row[key] for key in (*_TOLD, *(f"z {name}" for name in responses))}
