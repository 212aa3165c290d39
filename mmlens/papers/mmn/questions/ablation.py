"""E5: does the caption depend on these neurons? (MMN 3.3, Fig. 6, Fig. S.3, Table S.3)

1. Sort a picture's units by g[k, c]; silence the top k, k in {0, 50, 100, ..., 6400} (of the
   paper's 458,752 units: up to 1.4 %). A k below 1 is a share of all units.
2. Arms: "attributed", all units; "interpretable", only those; "random", as many units of the same
   layers as the attributed arm (the same histogram, exactly).
3. Measure the probability of c where it was said, and the newly generated caption (T = 0), which is
   compared with the old one.

What silencing is the paper does not say: activations after the activation function are set to 0 at
all positions, options `value` and `where`. All variants of a picture run side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.causal.silencing import WHERE, captions_after, number_after, units_at
from mmlens.datasets.sample import Sample
from mmlens.methods.sink_units import sink_units
from mmlens.metrics.counts import word_overlap_f1
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import (
    interpretable_first,
    numbers_of,
    partners,
    ranked,
    scored,
    shuffle,
)
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, Rule
from mmlens.papers.mmn.questions.question_options import ARMS as ARMS
from mmlens.papers.scoring import Compare
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.values.arguments import choice, count, instance, number, several, shown
from mmlens.values.written import accepts

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

PAPER_KS = (0, 50, 100, 200, 400, 800, 1600, 3200, 6400)
COLUMNS = ("arm", "k", "draw", "share", "prob", "caption", "noun")
SINKS = ("kept", "apart")


def ablations(
    model: HookedVLM,
    sample: Sample,
    *,
    ks: Sequence[int | float] = PAPER_KS,
    arms: Sequence[str] = ARMS,
    value: float | str = 0.0,
    where: str = "all",
    point: str = "pre",
    target: str = "logit",
    rank_by: str = "pair",
    gain: bool = False,
    random_from: str = "others",
    randoms: int = 1,
    sinks: str = "kept",
    captions: bool = True,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    batch: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The noun's probability and the caption without the top k units, by arm and k.

    Args:
        ks: numbers of units, or shares of all units (below 1, or 1.0). What an arm cannot have (too
            few units, or too few others in a layer) has no row.
        value: what a silenced unit is: a number, or "mean" (over the prompt's positions).
        where: silenced at "all" positions, at those of the "image", or at the "last".
        random_from: "others" of the layer than the attributed units, or "any" of the layer.
        randoms: how often random units are drawn; `summary` takes their mean, picture by picture.
        sinks: "apart" leaves the units out of both arms that are huge at the first position
            (`sink_units`), and silences them all as an arm of their own.
        captions: whether new captions are generated (None otherwise); of random units, those of
            the first draw, because they cost twice what all else does.
        batch: variants computed side by side (default: what fits into the free memory).

    Returns:
        arm, k, draw (of random units, from 0), share (of all units), prob, caption, noun, skipped,
        options.
    """
    ks, arms = several(ks, "ks"), several(arms, "arms")
    asked = Asked.from_arguments(locals(), COLUMNS)
    choice(where, "where", tuple(WHERE), error=ExperimentError)
    choice(sinks, "sinks", SINKS, error=ExperimentError)
    randoms = count(randoms, "randoms", most=100, error=ExperimentError)
    counts = numbers(ks, model.cfg.n_layers * model.cfg.d_mlp)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    order = ranked(scored(model, seen, point, target), rank_by)
    apart = _sinks(model, seen) if sinks == "apart" else order[:0]
    order, drawn = order[~torch.isin(order, apart)], asked.random()
    own = {"gain": gain, "random_from": random_from}
    variants: list[tuple[str, int, int, torch.Tensor]] = []
    for draw in range(randoms):
        now = [arm for arm in arms if draw == 0 or arm == "random"]
        random = _last(shuffle(model, drawn), apart)
        found = chosen(model, order, counts, now, random, **own)
        variants += [(arm, k, draw, one) for (arm, k), one in found.items() if not draw or k]
    if len(apart):
        variants.append(("sinks", len(apart), 0, apart))
    units = [units_at(model, one) for *_, one in variants]
    how = {"value": value, "where": where, "batch": batch}
    prob = number_after(model, seen.soft, lambda y: y.softmax(-1)[:, seen.token], units, **how)
    told = [i for i, (*_, draw, _) in enumerate(variants) if captions and not draw]
    said: list[str | None] = [None] * len(units)
    if told:
        some = [units[i] for i in told]
        new = captions_after(model, seen.prompt, some, max_new_tokens=max_new_tokens, **how)
        for i, text in zip(told, new, strict=True):
            said[i] = text
    table = pd.DataFrame([row[:3] for row in variants], columns=["arm", "k", "draw"])
    total = model.cfg.n_layers * model.cfg.d_mlp
    table = table.assign(share=table["k"] / total, prob=prob.tolist(), caption=said, noun=seen.noun)
    return asked.answered(table)


def _sinks(model: HookedVLM, seen: Explained) -> torch.Tensor:
    """The numbers of the units that are huge at the first position of this prompt."""
    return numbers_of(model, list(sink_units(model, seen.soft)["neuron"]))


def _last(shuffled: torch.Tensor, apart: torch.Tensor) -> torch.Tensor:
    """The same order of every layer's units, these at its end: drawn when no other is left."""
    if not len(apart):
        return shuffled
    width = shuffled.shape[1]
    rows = torch.arange(len(shuffled))[:, None] * width
    late = torch.isin(shuffled + rows, apart)
    return shuffled.gather(1, late.long().argsort(dim=1, stable=True))


def numbers(ks: Sequence[int | float], total: int) -> list[int]:
    """Numbers of units, increasing, from numbers and shares; those above the total are left out.

    Raises:
        ExperimentError: a negative number, or a share above 1.
    """
    given = [number(k, "ks", error=ExperimentError) for k in several(ks, "ks")]
    if any(k < 0 for k in given) or any(isinstance(k, float) and k > 1 for k in ks):
        raise ExperimentError(f"ks={list(ks)}: give numbers of units, or shares from 0.0 to 1.0.")
    found = {round(k * total) if isinstance(k, float) else k for k in ks}
    return sorted(k for k in found if k <= total)


def chosen(
    model: HookedVLM,
    order: torch.Tensor,
    counts: Sequence[int],
    arms: Sequence[str],
    random: torch.Tensor,
    *,
    gain: bool = False,
    random_from: str = "others",
) -> dict[tuple[str, int], torch.Tensor]:
    """Which units each (arm, k) silences: numbers layer * units + unit.

    Args:
        order: all units, the highest score first.
        random: Long[layer, unit], the units of every layer in random order.
    """
    out: dict[tuple[str, int], torch.Tensor] = {}
    for arm in arms:
        own = order
        if arm == "interpretable":
            own = interpretable_first(model, order, max(counts, default=0), gain)
        for k in counts:
            units: torch.Tensor | None = own[:k]
            if arm == "random":
                units = partners(model, order[:k], random, others=random_from == "others")
            if units is not None and len(units) == k:
                out[arm, k] = units
    return out


def summary(
    table: pd.DataFrame,
    compare: Mapping[str, Compare] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """By arm and k: experiment, arm, metric, k, mean, low, high, n, ...

    `k` of the arm "sinks" is the mean number of units over pictures, rounded.

    Metrics: "probability" of the noun; "drop", the share of it that is lost, 1 - mean p_k / mean
    p_0 over the same pictures (`bootstrap` says why not the mean of 1 - p_k / p_0); "caption
    unchanged"; and per function of `compare` the score of the new caption against the old one.

    Args:
        table: of `ablations`, with k = 0 among `ks` for what compares with it.
        compare: by name, functions of texts and reference texts; by default the word overlap.
    """
    rows = used(table, "arm", "k", "prob", "caption")
    rows = rows.dropna(subset=["k", "prob"])
    if not len(rows):
        raise ExperimentError("No row of this table has both a number of units and a probability.")
    compare = {"word overlap F1": word_overlap_f1} if compare is None else compare
    instance(compare, "compare", Mapping, "functions by name")
    for name, function in compare.items():
        if not callable(function):
            raise ExperimentError(f"The metric {name!r} is {shown(function)} and no function.")
        if not accepts(function, 2):
            raise ExperimentError(
                f"The metric {name!r} cannot be called with 2 arguments: give a function of"
                " (texts, reference texts)."
            )
    rows = rows.assign(k=rows["k"].astype(int), prob=rows["prob"].astype(float))
    sinks = rows["arm"] == "sinks"  # as many as a picture has: told by their mean number
    if sinks.any():
        rows.loc[sinks, "k"] = max(1, round(rows.loc[sinks, "k"].mean()))
    first = rows[rows["k"] == 0].drop_duplicates("sample").set_index("sample")
    old_prob, old = rows["sample"].map(first["prob"]), rows["sample"].map(first["caption"])
    keys = rows[["sample", "arm", "k"]].assign(base=1.0)
    found = [keys.assign(metric="probability", value=rows["prob"])]
    found.append(keys.assign(metric="drop", value=old_prob - rows["prob"], base=old_prob))
    both = rows["caption"].notna() & old.notna()
    settings: dict[str, object] = {}
    if both.any():
        new, before = rows.loc[both, "caption"], old[both]
        same = (new == before).astype(float)
        found.append(keys[both].assign(metric="caption unchanged", value=same))
        for name, function in compare.items():
            pairs = pd.DataFrame({"new": new, "old": before}).drop_duplicates()
            scores = function(pairs["new"].tolist(), [[text] for text in pairs["old"]])
            value = dict(zip(pairs.itertuples(index=False, name=None), scores.items, strict=True))
            each = [value[pair] for pair in zip(new, before, strict=True)]
            found.append(keys[both].assign(metric=name, value=each))
            settings[name] = {"metric": scores.name, **scores.settings}
    long: Any = pd.concat(found, ignore_index=True).dropna(subset="value")
    long = with_differences(long, *_pairs(long["arm"].tolist()))
    out = summarise(long, ["arm", "metric", "k"], draws=draws, seed=seed)
    return finished(out, "E5", table, draws=draws, seed=seed, metrics=settings)


def _pairs(arms: Iterable[str]) -> list[tuple[str, str]]:
    there = set(arms)
    pairs = [("attributed", "random"), ("interpretable", "random")]
    return [pair for pair in pairs if there >= set(pair)]
