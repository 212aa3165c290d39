"""Cross-format index of a unit: does it answer to one concept as photo, drawing, symbol and word?

For every format f, pictures of a concept and distractors *of the same format*:

    z[f]      = (mean over the concept - mean over the distractors) / s
    AUROC[f]  = P(a picture of the concept > a distractor)
    index     = the least of z (of AUROC) over the formats

s is the unit's standard deviation over all distractors once each format's mean is taken out, so a
unit that answers to black letters on white, whatever they say, gains nothing by it, and one that is
silent in a format has no tiny denominator there. Goh et al. (2021) show units by photo, drawing and
text; a person detector answers to photos alone, and its index is near 0 (AUROC near .5).

Intervals: concept pictures and distractors are drawn anew within each format (percentile
bootstrap). p: the claim is "in every format", so it is the largest over formats of the permutation
p-values of AUROC (intersection-union test, Berger 1982). p_family corrects for having looked at
many units: in each permutation the largest AUROC of all units counts (Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.methods.unit_responses import TOWER, unit_responses
from mmlens.model.capabilities import needs
from mmlens.values.arguments import count, instance, several
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Neuron

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

MOST_DRAWS = 100_000
TAILS = (2.5, 97.5)
_AT_ONCE = 4_000_000
"""Numbers that one step of the bootstrap holds."""

Format = tuple[np.ndarray, np.ndarray]
"""Responses to the concept, Float[picture, unit], and to the distractors."""


@needs("pictures")
def cross_format(
    model: HookedModel,
    shown: Mapping[str, tuple[Sequence[Any], Sequence[Any]]],
    *,
    layer: int = -1,
    site: str | None = None,
    over: str = "max",
    pos: Any = None,
    draws: int = 1000,
    seed: int = 0,
    batch: int = 32,
) -> pd.DataFrame:
    """One row per unit of a layer, the largest index first (columns: `cross_format_index`).

    Args:
        shown: per format ("photo", "drawing", "symbol", "written", ...) the pictures of the concept
            and the distractors of the same format, at least two of each.
        layer, site, over, pos: as in `unit_responses`.
        draws: of the bootstrap, and permutations.

    Raises:
        ArgumentError: fewer than two formats, or two pictures of a kind.
    """
    formats = _formats(shown)
    count(layer, "layer", least=-(10**6), most=10**6)
    count(draws, "draws", most=MOST_DRAWS)
    read: dict[str, Any] = {
        "layer": layer, "site": site, "over": over, "pos": pos, "batch": batch,
    }  # fmt: skip
    every = [one for concept, others in formats.values() for one in (*concept, *others)]
    found = unit_responses(model, every, **read)
    values, responses, start = found.values.float().cpu().numpy(), {}, 0
    for name, (concept, others) in formats.items():
        middle, end = start + len(concept), start + len(concept) + len(others)
        responses[name] = (values[start:middle], values[middle:end])
        start = end
    table = cross_format_index(responses, draws=draws, seed=seed)
    at = int(found.about["layer"])
    table.insert(0, "neuron", [Neuron(at, int(unit), TOWER) for unit in table.pop("unit")])
    return table


def cross_format_index(
    responses: Mapping[str, Format], *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The index from responses alone: one row per unit, the largest `z` first.

    Columns: unit; z, z_low, z_high and auroc, auroc_low, auroc_high (the least over formats, with
    95 % intervals); weakest (the format of the least AUROC); p, p_family; and z, auroc, p of each
    format as "z photo", "auroc photo", "p photo".

    Args:
        responses: per format Float[concept picture, unit] and Float[distractor, unit].
    """
    import pandas as pd

    draws = count(draws, "draws", most=MOST_DRAWS)
    rng = np.random.default_rng(count(seed, "seed", least=0))
    instance(responses, "responses", Mapping, "a mapping from formats to two arrays")
    given = {
        name: (np.asarray(concept, float), np.asarray(others, float))
        for name, (concept, others) in responses.items()
    }
    _check_sizes(given)
    widths = {one.shape[1:] for two in given.values() for one in two}
    if len(widths) > 1 or any(len(width) != 1 for width in widths):
        raise ArgumentError(
            f"Responses of shapes {sorted(widths)} behind the pictures: give [picture, unit] of"
            " the same units in every format."
        )
    spread = _spread([others for _, others in given.values()])
    z, auroc, p, family, z_drawn, auroc_drawn = {}, {}, {}, {}, [], []
    for name, (concept, others) in given.items():
        z[name] = _z(concept.mean(0) - others.mean(0), spread)
        auroc[name] = _auroc(concept, others)
        p[name], family[name] = _permuted(concept, others, auroc[name], draws, rng)
        times = [rng.multinomial(len(one), np.full(len(one), 1 / len(one)), draws).astype(float)
                 for one in (concept, others)]  # fmt: skip
        means = [t @ one / len(one) for t, one in zip(times, (concept, others), strict=True)]
        z_drawn.append(_z(means[0] - means[1], spread))
        auroc_drawn.append(_auroc_drawn(concept, others, *times))
    zs, areas = np.stack(list(z.values())), np.stack(list(auroc.values()))
    z_range = np.percentile(np.min(z_drawn, axis=0), TAILS, axis=0)
    area_range = np.percentile(np.min(auroc_drawn, axis=0), TAILS, axis=0)
    names = list(given)
    table = pd.DataFrame(
        {
            "unit": np.arange(zs.shape[1]),
            "z": zs.min(0), "z_low": z_range[0], "z_high": z_range[1],
            "auroc": areas.min(0), "auroc_low": area_range[0], "auroc_high": area_range[1],
            "weakest": [names[i] for i in areas.argmin(0)],
            "p": np.max(list(p.values()), axis=0),
            "p_family": np.max(list(family.values()), axis=0),
            **{f"{what} {name}": values[name] for what, values in
               (("z", z), ("auroc", auroc), ("p", p)) for name in names},
        }
    )  # fmt: skip
    return table.sort_values("z", ascending=False, kind="stable", ignore_index=True)


def _spread(distractors: Sequence[np.ndarray]) -> np.ndarray:
    """Float[unit]: the standard deviation within formats, pooled over them."""
    squares = sum(((one - one.mean(0)) ** 2).sum(0) for one in distractors)
    freedom = sum(len(one) - 1 for one in distractors)
    return np.sqrt(squares / freedom)


def _z(difference: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The difference in standard deviations; 0 of a unit that never moves."""
    return np.where(spread > 1e-12, difference / np.maximum(spread, 1e-12), 0.0)


def _auroc(concept: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Float[unit]: how often a concept picture exceeds a distractor; ties count one half."""
    from scipy.stats import rankdata

    n = len(concept)
    ranks = rankdata(np.concatenate([concept, others]), axis=0)
    return (ranks[:n].sum(0) - n * (n + 1) / 2) / (n * len(others))


def _permuted(
    concept: np.ndarray, others: np.ndarray, found: np.ndarray, draws: int, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """p-values per unit, by itself and among all units: labels are dealt anew in one format."""
    from scipy.stats import rankdata

    n, m = len(concept), len(others)
    ranks = rankdata(np.concatenate([concept, others]), axis=0)
    order = rng.permuted(np.tile(np.arange(n + m), (draws, 1)), axis=1)
    dealt = (order < n).astype(float)
    areas = (dealt @ ranks - n * (n + 1) / 2) / (n * m)
    own = (1 + (areas >= found - 1e-12).sum(0)) / (draws + 1)
    largest = np.sort(areas.max(1))
    among = (1 + draws - np.searchsorted(largest, found - 1e-12)) / (draws + 1)
    return own, among


def _auroc_drawn(
    concept: np.ndarray, others: np.ndarray, times: np.ndarray, other_times: np.ndarray
) -> np.ndarray:
    """Float[draw, unit]: AUROC of pictures drawn anew, as weights of pairs."""
    draws, units = len(times), concept.shape[1]
    found = np.empty((draws, units))
    step = max(1, _AT_ONCE // (draws * len(others)))
    for start in range(0, units, step):
        a, b = concept[:, start : start + step], others[:, start : start + step]
        wins = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])  # concept, other, unit
        rows = np.tensordot(times, wins, 1)  # draw, other, unit
        found[:, start : start + step] = np.einsum("dou,do->du", rows, other_times)
    return found / (len(concept) * len(others))


def _formats(shown: Any) -> dict[str, tuple[list[Any], list[Any]]]:
    what = "a mapping from formats to (pictures of the concept, distractors)"
    found = {}
    for name, two in instance(shown, "shown", Mapping, what).items():
        both = several(two, "shown")
        if len(both) != 2:
            raise ArgumentError(f"shown[{name!r}]: give two lists, the concept and distractors.")
        found[name] = (several(both[0], "shown"), several(both[1], "shown"))
    _check_sizes(found)
    return found


def _check_sizes(formats: Mapping[str, Any]) -> None:
    """Two formats at least, each with two pictures of a kind."""
    if len(formats) < 2:
        raise ArgumentError(f"shown={list(formats)}: give at least two formats.")
    for name, (concept, others) in formats.items():
        if len(concept) < 2 or len(others) < 2:
            raise ArgumentError(
                f"Format {name!r} has {len(concept)} pictures of the concept and {len(others)}"
                " distractors: give at least two of each."
            )
