"""Ablation: the effect of removing a part, compared with removing others.

    ablate(model, prompt, metric, "resid_pre", mean_over(model, prompts, "resid_pre"), pos=Patch)
    ablation_curve(model, prompt, metric, list(best.neuron), k=(1, 3, 10, 30))

A part is replaced by a number (0), by its mean over a data set (`mean_over`), or by its value for
another prompt of the same layout (resample ablation; Chan et al. 2022). The curve ablates the first
k of a ranking ("ranked"), everything except these ("complement": are they sufficient?) and as many
others drawn from the same layers ("random 1", ...), which shows what any k units do.

Axes: of `ablate` those of `patch`; of `ablation_curve` (arm, k).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Image

from mmlens.causal.changes import Source, Variant
from mmlens.causal.many_pairs import over_pairs
from mmlens.causal.measures import name_of
from mmlens.causal.pairs import unlike
from mmlens.causal.places import Place, layers_at, place_of, stays
from mmlens.causal.prefix_reuse import Kept, keep
from mmlens.causal.variants import Metric, numbers, run, standing
from mmlens.methods.patch import layers_of, place_in, variants_at
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site, unit_site
from mmlens.model.targets import finite
from mmlens.runtime.progress import Progress
from mmlens.values.addresses import check_tower, places
from mmlens.values.arguments import count, number, several, shown
from mmlens.values.errors import AddressError, SiteError
from mmlens.values.labels import LM, Head, Neuron
from mmlens.values.maps import is_map
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES, Site, shared
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

Unit = Neuron | Head
MOST = 10_000
"""The most random arms of one curve; each is a run for every k."""
Value = float | Scores | Prompt | SoftPrompt | Image
"""What replaces a part: a number, a mean, or another prompt's activation."""


@needs("one pass")
@over_pairs(reads="clean")
def ablate(
    model: HookedModel,
    prompt: Any,
    metric: Metric,
    site: str | None = None,
    value: Value = 0.0,
    units: Any = None,
    *,
    by: Sequence[str] | str | None = None,
    batch: int | None = None,
    progress: Progress | bool | None = None,
    **address: Any,
) -> Scores:
    """The metric without each place: Scores over the axes in `by`, as in `patch`.

    Args:
        value: a number, Scores of `mean_over`, or another prompt of the same layout.
        metric, site, units, by, batch, progress, address: as in `patch`.

    Returns:
        The metric; `about["clean"]` is the metric with nothing ablated.
    """
    kept = keep(model, prompt)
    units = units if units is None else units_in(units, "units")
    site = site or own_site(model, "resid_pre", kept.soft).name
    where = place_in(model, kept, site, address, units)
    axes, labels, variants = variants_at(model, where, units, by, address)
    source = _source(model, kept, where, layers_of(variants), value)
    how: dict[str, Any] = {"batch": batch, "progress": progress, "what": "ablate"}
    values, rows = run(model, kept, where, source, variants, partial(numbers, metric), **how)
    clean = float(numbers(metric, kept.logits[None])[0])
    share = shared(where.site, getattr(model, "cfg", None)) | stays(kept.soft, where.site)
    told = about(model, method="ablate", site=site, value=value, prompt=kept.soft, rows=rows,
                 metric=name_of(metric), clean=clean, **share)  # fmt: skip
    return Scores(values.reshape([len(labels[axis]) for axis in axes]), axes, labels, told)


@needs("one pass")
@over_pairs(reads="clean")
def ablation_curve(
    model: HookedModel,
    prompt: Any,
    metric: Metric,
    ranked: Any,
    *,
    k: Sequence[int] = (0, 1, 3, 10, 30),
    value: Value = 0.0,
    pos: Any = None,
    randoms: int = 5,
    seed: int = 0,
    batch: int | None = None,
    progress: Progress | bool | None = None,
) -> Scores:
    """The metric without the first k units, without the rest, or without k others: Scores(arm, k).

    Args:
        ranked: Neurons, or Heads, of one tower, the most important first: a list, a Series, a
            table. In an encoder of convolutions a Neuron is a channel, and all are of one layer.
        k: how many; more than there are in `ranked` is refused.
        pos: ablate at these positions of the prompt only (default: at all).
        randoms: how many random arms.
        progress: as in `patch`.

    Raises:
        AddressError: too few units in the ranking, or in a layer for its random partners.
    """
    units = list(dict.fromkeys(units_in(ranked, "ranked")))
    counts = [count(n, "k", least=0, error=AddressError) for n in several(k, "k")]
    randoms, seed = count(randoms, "randoms", least=0, most=MOST), count(seed, "seed", least=0)
    kinds = {type(unit) for unit in units}
    if kinds not in ({Neuron}, {Head}) or max(counts) > len(units):
        raise AddressError(
            f"A curve up to k={max(counts)} needs as many different Neurons (or Heads), not"
            f" {len(units)}."
        )
    kept = keep(model, prompt)
    site = _site_of(model, units)
    where = place_of(model, kept.soft, site.name, _layers_of(model, site, units))
    layers = hooking.layers(model, site) if where.axes is None else (units[0].layer,)
    for unit in units:
        index = unit.unit if isinstance(unit, Neuron) else unit.head
        if not (unit.layer in layers and 0 <= index < where.sizes[0]):
            raise AddressError(
                f"There is no {unit}: {model.name!r} has {len(layers)} layers of"
                f" {where.sizes[0]} {where.inner}s."
            )
    spots = None if pos is None else tuple(places(where.labels, pos, "pos"))
    if spots == ():
        raise AddressError(f"pos={pos!r} names no position: write some, or None for all.")
    arms = _arms(units, where.sizes[0], layers, counts, randoms, seed)
    variants = [Variant(at, spots) for arm in arms.values() for at in arm]
    source = _source(model, kept, where, list(layers), value)
    how: dict[str, Any] = {"batch": batch, "progress": progress, "what": "ablation_curve"}
    values, _ = run(model, kept, where, source, variants, partial(numbers, metric), **how)
    clean = float(numbers(metric, kept.logits[None])[0])
    told = about(model, method="ablation_curve", prompt=kept.soft, value=value, seed=seed,
                 metric=name_of(metric), clean=clean)  # fmt: skip
    labels = {"arm": tuple(arms), "k": tuple(counts)}
    return Scores(values.reshape(len(arms), len(counts)), ("arm", "k"), labels, told)


@needs("one pass")
def mean_over(
    model: HookedModel,
    prompts: Sequence[Any],
    site: str | None = None,
    pos: Any = None,
    *,
    layer: Any = None,
) -> Scores:
    """The mean activation at a site over prompts and positions: Scores(layer, unit | head, dim).

    Args:
        site: by default "neurons" of the tower that reads the prompts.
        pos: the positions that are averaged over (default: all).
        layer: some layers only; one, where they differ in shape.

    Raises:
        AddressError: no prompts.
    """
    prompts = several(prompts, "prompts", least=0, what="list of prompts")
    if not prompts:
        raise AddressError("The mean over no prompts does not exist: give at least one.")
    total: dict[int | None, torch.Tensor] = {}
    where: Place | None = None
    for prompt in prompts:
        soft = model.one(prompt)
        site = site or own_site(model, "neurons", soft).name
        where = place_of(model, soft, site, layer)
        if where.site.name == "pixels":
            raise SiteError("Pixels have no positions to average over: mean_picture(...) does it.")
        found = standing(model, soft, where, list(layers_at(model, where.site, layer)))
        spots = places(where.labels, pos, "pos")
        for layer, values in found.items():
            flat = values if where.site.in_lm else values.flatten(0, 1)
            total[layer] = total.get(layer, 0.0) + flat[spots].float().mean(0) / len(prompts)
    assert where is not None  # there was at least one prompt
    axes = where.behind
    told = about(model, method="mean_over", site=site, prompts=len(prompts))
    told |= shared(where.site, getattr(model, "cfg", None))
    for mean in total.values():
        finite(mean, f"the mean at {site!r}")
    if None in total:
        return Scores(total[None], axes, {}, told)
    labels = {"layer": tuple(total)}
    return Scores(torch.stack(list(total.values())), ("layer", *axes), labels, told)


def _site_of(model: HookedModel, units: Sequence[Unit]) -> Site:
    """The site of the activations of units, all of one tower."""
    first = units[0]
    check_tower(units, first.tower, f"of {first}")
    if isinstance(first, Neuron) and first.tower != LM:
        return unit_site(model, first)
    name = "neurons" if isinstance(first, Neuron) else "z"
    return SITES[name if first.tower == LM else f"{first.tower}.{name}"]


def _layers_of(model: HookedModel, site: Site, units: Sequence[Unit]) -> list[int] | None:
    """The layers of channels, whose number differs from layer to layer; else all."""
    if site.in_lm:
        return None
    known = hooking.check_places(model, site, [units[0].layer])[units[0].layer]
    return sorted({unit.layer for unit in units}) if is_map(known.axes) else None


def _source(
    model: HookedModel, kept: Kept, where: Place, layers: Sequence[int | None], value: Value
) -> Source:
    """The replacement per layer, of length one where it is the same at all positions."""
    if isinstance(value, (Prompt, SoftPrompt, Image, str)):
        other = model.one(value)
        if difference := unlike(other, kept.soft):
            raise AddressError(
                f"The other prompt and this one have {difference}: to resample, give a prompt of"
                " the same layout, and for the mean mean_over(model, prompts)."
            )
        return standing(model, other, where, layers)
    if isinstance(value, Scores):
        axes = where.behind
        by_layer = {at: value.sel(layer=at) if "layer" in value.axes else value for at in layers}
        if any(scores.axes != axes for scores in by_layer.values()):
            raise AddressError(
                f"{value!r} is no mean at {where.site.name!r}, whose axes are {', '.join(axes)}:"
                " take patching.mean_over(...) at this site."
            )
        return {at: _wide(where, scores.values) for at, scores in by_layer.items()}
    if not isinstance(value, (int, float)):
        raise AddressError(
            f"value={shown(value)}: give a number, Scores of mean_over(...), or another prompt;"
            " neurons stand in units=, as in units=[Neuron(14, 2019)]."
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
    units: list[Unit], width: int, layers: Sequence[int], k: Sequence[int], randoms: int, seed: int
) -> dict[str, list[dict[int | None, tuple[int, ...]]]]:
    """Per arm and k, the units that are ablated in each layer."""
    place = lambda unit: unit.unit if isinstance(unit, Neuron) else unit.head  # noqa: E731

    def by_layer(some: Sequence[Unit]) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for unit in some:
            found.setdefault(unit.layer, set()).add(place(unit))
        return found

    firsts = [by_layer(units[:n]) for n in k]
    nothing: dict[int | None, tuple[int, ...]] = {layers[0]: ()}
    whole = set(range(width))
    arms: dict[str, list[dict[int | None, tuple[int, ...]]]] = {
        "ranked": [{at: tuple(sorted(u)) for at, u in first.items()} or nothing for first in firsts]
    }
    arms["complement"] = [
        {at: tuple(sorted(whole - first.get(at, set()))) for at in layers} for first in firsts
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
            or nothing
            for first in firsts
        ]
    return arms
