"""Ablation: the effect of removing a part, compared with removing others.

    ablate(model, prompt, metric, "resid_pre", mean_over(model, prompts, "resid_pre"), pos=Patch)
    ablation_curve(model, prompt, metric, list(best.neuron), k=(1, 3, 10, 30))

A part is replaced by a number (0), by its mean over a data set (`mean_over`), or by its value for
another prompt of the same layout (resample ablation; Chan et al. 2022). The curve ablates the first
k of a ranking ("ranked"), everything except these ("complement": are they sufficient?) and as many
others drawn from the same layers ("random 1", ...), so that their effect can be distinguished from
that of any k units.

Axes: of `ablate` those of `patch`; of `ablation_curve` (arm, k).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmlens.causal.changes import Source, Variant
from mmlens.causal.pairs import same_pictures
from mmlens.causal.places import Place, place_of
from mmlens.causal.prefix_reuse import Kept, keep
from mmlens.causal.variants import Metric, numbers, run, standing
from mmlens.methods.patch import layers_of, place_in, variants_at
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.values.addresses import places
from mmlens.values.arguments import count, number, several, shown
from mmlens.values.errors import AddressError, SiteError
from mmlens.values.labels import Head, Neuron
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.scores import Scores
from mmlens.values.sites import shared

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Unit = Neuron | Head
MOST = 10_000
"""The most random arms of one curve; each is a run for every k."""
Value = float | Scores | Prompt | SoftPrompt
"""What replaces a part: a number, a mean, or another prompt's activation."""


@needs("logits")
def ablate(
    model: HookedVLM,
    prompt: Any,
    metric: Metric,
    site: str = "resid_pre",
    value: Value = 0.0,
    units: Sequence[Unit] | None = None,
    *,
    by: Sequence[str] | str | None = None,
    batch: int | None = None,
    **address: Any,
) -> Scores:
    """The metric without each place: Scores over the axes in `by`, as in `patch`.

    Args:
        value: a number, Scores of `mean_over`, or another prompt of the same layout.
        units, by, batch, address: as in `patch`.

    Returns:
        The metric; `about["clean"]` is the metric with nothing ablated.
    """
    kept = keep(model, prompt)
    where = place_in(model, kept, site, address)
    axes, labels, variants = variants_at(model, where, units, by, address)
    source = _source(model, kept, where, layers_of(variants), value)
    each = partial(numbers, metric)
    values, rows = run(model, kept, where, source, variants, each, batch=batch)
    share = shared(where.site, model.cfg)
    told = about(model, method="ablate", site=site, value=value, prompt=kept.soft, rows=rows,
                 clean=float(numbers(metric, kept.logits[None])[0]), **share)  # fmt: skip
    return Scores(values.reshape([len(labels[axis]) for axis in axes]), axes, labels, told)


@needs("logits")
def ablation_curve(
    model: HookedVLM,
    prompt: Any,
    metric: Metric,
    ranked: Sequence[Unit],
    *,
    k: Sequence[int] = (0, 1, 3, 10, 30),
    value: Value = 0.0,
    pos: Any = None,
    randoms: int = 5,
    seed: int = 0,
    batch: int | None = None,
) -> Scores:
    """The metric without the first k units, without the rest, or without k others: Scores(arm, k).

    Args:
        ranked: Neurons, or Heads, the most important first.
        k: how many; more than there are in `ranked` is refused.
        pos: ablate at these positions of the prompt only (default: at all).
        randoms: how many random arms.

    Raises:
        AddressError: too few units in the ranking, or in a layer for its random partners.
    """
    units = list(dict.fromkeys(several(ranked, "ranked", least=0)))
    counts = [count(n, "k", least=0, error=AddressError) for n in several(k, "k")]
    randoms, seed = count(randoms, "randoms", least=0, most=MOST), count(seed, "seed", least=0)
    kinds = {type(unit) for unit in units}
    if kinds not in ({Neuron}, {Head}) or max(counts) > len(units):
        raise AddressError(
            f"A curve up to k={max(counts)} needs as many different Neurons (or Heads), not"
            f" {len(units)}."
        )
    site = "neurons" if kinds == {Neuron} else "z"
    kept = keep(model, prompt)
    where = place_of(model, kept.soft, site)
    for unit in units:
        index = unit.unit if isinstance(unit, Neuron) else unit.head
        if not (0 <= unit.layer < model.cfg.n_layers and 0 <= index < where.sizes[0]):
            raise AddressError(
                f"There is no {unit}: {model.name!r} has {model.cfg.n_layers} layers of"
                f" {where.sizes[0]} {where.inner}s."
            )
    spots = None if pos is None else tuple(places(where.labels, pos, "pos"))
    if spots == ():
        raise AddressError(f"pos={pos!r} names no position: write some, or None for all.")
    arms = _arms(units, where.sizes[0], model.cfg.n_layers, counts, randoms, seed)
    variants = [Variant(at, spots) for arm in arms.values() for at in arm]
    source = _source(model, kept, where, list(range(model.cfg.n_layers)), value)
    each = partial(numbers, metric)
    values, _ = run(model, kept, where, source, variants, each, batch=batch)
    told = about(model, method="ablation_curve", prompt=kept.soft, value=value, seed=seed,
                 clean=float(numbers(metric, kept.logits[None])[0]))  # fmt: skip
    labels = {"arm": tuple(arms), "k": tuple(counts)}
    return Scores(values.reshape(len(arms), len(counts)), ("arm", "k"), labels, told)


@needs("logits")
def mean_over(
    model: HookedVLM, prompts: Sequence[Any], site: str = "neurons", pos: Any = None
) -> Scores:
    """The mean activation at a site over prompts and positions: Scores(layer, unit | head, dim).

    Args:
        pos: the positions that are averaged over (default: all).

    Raises:
        AddressError: no prompts.
    """
    prompts = several(prompts, "prompts", least=0, what="list of prompts")
    if not prompts:
        raise AddressError("The mean over no prompts does not exist: give at least one.")
    total: dict[int | None, torch.Tensor] = {}
    where: Place | None = None
    for prompt in prompts:
        soft = one(model, prompt)
        where = place_of(model, soft, site)
        if where.site.name == "pixels":
            raise SiteError("Pixels have no positions to average over: mean_picture(...) does it.")
        layered = where.site.layered
        layers = list(hooking.layers(model, where.site)) if layered else [None]
        found = standing(model, soft, where, layers)
        spots = places(where.labels, pos, "pos")
        for layer, values in found.items():
            flat = values if where.site.in_lm else values.flatten(0, 1)
            total[layer] = total.get(layer, 0.0) + flat[spots].float().mean(0) / len(prompts)
    assert where is not None  # there was at least one prompt
    axes = tuple(axis for axis in where.site.axes if axis != "pos")
    told = about(model, method="mean_over", site=site, prompts=len(prompts))
    told |= shared(where.site, model.cfg)
    for mean in total.values():
        finite(mean, f"the mean at {site!r}")
    if None in total:
        return Scores(total[None], axes, {}, told)
    labels = {"layer": tuple(total)}
    return Scores(torch.stack(list(total.values())), ("layer", *axes), labels, told)


def _source(
    model: HookedVLM, kept: Kept, where: Place, layers: Sequence[int | None], value: Value
) -> Source:
    """The replacement per layer, of length one where it is the same at all positions."""
    if isinstance(value, (Prompt, SoftPrompt, str)):
        other = one(model, value)
        if other.ids.shape != kept.soft.ids.shape or not same_pictures(other, kept.soft):
            raise AddressError(
                f"The other prompt has {other.ids.shape[1]} positions, this one {kept.width}, or it"
                " has its pictures at other places: to resample, give a prompt of the same layout."
            )
        return standing(model, other, where, layers)
    if isinstance(value, Scores):
        axes = tuple(axis for axis in where.site.axes if axis != "pos")
        by_layer = {at: value.sel(layer=at) if "layer" in value.axes else value for at in layers}
        if any(scores.axes != axes for scores in by_layer.values()):
            raise AddressError(
                f"{value!r} is no mean at {where.site.name!r}, whose axes are {', '.join(axes)}:"
                " take patching.mean_over(...) at this site."
            )
        return {at: _wide(where, scores.values) for at, scores in by_layer.items()}
    if not isinstance(value, (int, float)):
        raise AddressError(
            f"value={shown(value)}: give a number, Scores of mean_over(...), or another prompt."
        )
    whole = torch.full(where.sizes, number(value, "value"))
    return {at: _wide(where, whole) for at in layers}


def _wide(where: Place, values: torch.Tensor) -> torch.Tensor:
    """One position; in the vision encoder one picture with all of its positions."""
    if where.site.in_lm:
        return values[None]
    n = where.width // where.n_pictures
    return values[None, None].expand(where.n_pictures, n, *values.shape)


def _arms(
    units: list[Unit], width: int, n_layers: int, k: Sequence[int], randoms: int, seed: int
) -> dict[str, list[dict[int | None, tuple[int, ...]]]]:
    """Per arm and k, the units that are ablated in each layer."""
    place = lambda unit: unit.unit if isinstance(unit, Neuron) else unit.head  # noqa: E731

    def by_layer(some: Sequence[Unit]) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for unit in some:
            found.setdefault(unit.layer, set()).add(place(unit))
        return found

    firsts = [by_layer(units[:n]) for n in k]
    whole = set(range(width))
    arms: dict[str, list[dict[int | None, tuple[int, ...]]]] = {
        "ranked": [{at: tuple(sorted(u)) for at, u in first.items()} or {0: ()} for first in firsts]
    }
    arms["complement"] = [
        {at: tuple(sorted(whole - first.get(at, set()))) for at in range(n_layers)}
        for first in firsts
    ]
    most = by_layer(units[: max(k, default=0)])
    few = [at for at, some in most.items() if width < 2 * len(some)]
    if few and randoms:
        raise AddressError(
            f"Layer {few[0]} has {width} units and {len(most[few[0]])} of them are ranked: too few"
            " others for a random control. Write randoms=0, or a smaller k."
        )
    for arm in range(randoms):
        generator = np.random.default_rng((seed, arm))
        order = {at: generator.permutation(sorted(whole - some)) for at, some in most.items()}
        arms[f"random {arm + 1}"] = [
            {at: tuple(int(u) for u in order[at][: len(some)]) for at, some in first.items()}
            or {0: ()}
            for first in firsts
        ]
    return arms
