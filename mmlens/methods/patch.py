"""Activation patching: activations of one run replace those of another, place by place.

    patch(model, Pair(clean, corrupt), metric)                            # Scores(layer, pos)
    patch(model, pair, metric, "z")                                       # Scores(layer, head)
    patch(model, pair, metric, "attn_out", pos={"dog": dog, "rest": rest})
    patch(model, pair, metric, "neurons", [Neuron(3, 17), Neuron(4, 2)])  # Scores(neuron)
    patch(clip, Pair(dog, cat), metrics.logit(clip, "a photo of a dog"))  # of the image encoder

    score = metric(base with source's values at the place)

"denoise" (Vig et al. 2020; Meng et al. 2022): base is the corrupt run, source the clean one; a
place that restores the clean answer is sufficient for it. "noise": the reverse; a place that
destroys the answer is necessary (Heimersheim & Nanda 2024). Scores hold the plain metric;
`recovered` scales it to 0 at the corrupt and 1 at the clean run, in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from mmlens.causal.changes import Variant
from mmlens.causal.many_pairs import ends, over_pairs
from mmlens.causal.measures import name_of
from mmlens.causal.pairs import A_PAIR, Pair
from mmlens.causal.places import Place, groups, place_of, read_by, stays
from mmlens.causal.prefix_reuse import Kept, keep
from mmlens.causal.variants import Metric, numbers, run, standing
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site
from mmlens.runtime.progress import Progress
from mmlens.values.addresses import check_expert, check_tower, places, read_address
from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError, NumericsError, PromptError
from mmlens.values.labels import Head, Neuron
from mmlens.values.scores import Scores
from mmlens.values.sites import readers, shared
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

DIRECTIONS = ("denoise", "noise")


@needs("one pass")
@over_pairs()
def patch(
    model: HookedModel,
    pair: Pair,
    metric: Metric,
    site: str | None = None,
    units: Any = None,
    *,
    by: Sequence[str] | str | None = None,
    direction: str = "denoise",
    batch: int | None = None,
    progress: Progress | bool | None = None,
    **address: Any,
) -> Scores:
    """The metric with each place patched: Scores over the axes in `by`, in the site's order.

    Args:
        pair: one; of a list of pairs or a data set (`mmlens.causal.many_pairs`) the result has a
            leading axis `pair`, of which `patching.means` gives means, intervals and tests.
        metric: the last position's logits Float[d_vocab] to one number (`patching.metrics`), or the
            name of one, "logit", measured for the pair's own `of`; of a classifier its logits, of a
            dual encoder the unit embedding of the picture (or text).
        site: a site of any tower, "soft_prompt" or "pixels"; by default "resid_pre" of the language
            model, or of the encoder that reads the pair.
        units: single Neurons (or Heads), each patched alone: the axis "neuron" (or "head"); one, a
            list, a Series, or a table of them.
        by: axes along which places are patched one at a time; along the others all of the address
            at once. Default: layer and pos; at sites of heads, layer and head; with `units`, none.
        direction: "denoise" or "noise".
        batch: the most runs per batch (default: as many as fit into the free memory).
        progress: called with (done, of); by default a bar after two seconds, False for none.
        address: `layer=`, `pos=`, `head=`, `unit=`: labels, or a mapping from names to labels
            that are patched together.

    Returns:
        The metric; `about` has "clean" and "corrupt", "rows" (runs per batch) and "reuse".

    Raises:
        PromptError: the layouts differ. SiteError, AddressError: no such place.
    """
    base, source, told = _runs(model, pair, metric, direction)
    units = units if units is None else units_in(units, "units")
    site = site or own_site(model, "resid_pre", base.soft).name
    where = place_in(model, base, site, address, units)
    axes, labels, variants = variants_at(model, where, units, by, address)
    found = standing(model, source.soft, where, layers_of(variants))
    each = partial(numbers, metric)
    values, rows = run(model, base, where, found, variants, each, batch=batch, progress=progress)
    shape = [len(labels[axis]) for axis in axes]
    told |= {"method": "patch", "site": site, "direction": direction, "rows": rows}
    told |= shared(where.site, getattr(model, "cfg", None)) | stays(base.soft, where.site)
    return Scores(values.reshape(shape), axes, labels, about(model, **told, reuse=base.reuse))


def place_in(
    model: HookedModel, base: Kept, site: str, address: dict[str, Any], units: Any = None
) -> Place:
    """The place of a site in a run; "soft_prompt" stands for the positions of pictures, if any.

    Args:
        address: the caller's; positions of pictures are added where it has none.
        units: the caller's Neurons or Heads.
    """
    aside = getattr(base.soft, "picture_keys", True) is not None
    if site != "soft_prompt" or aside or base.soft.deep is not None:
        found = place_of(model, base.soft, site, _asked_layers(address.get("layer"), units))
        both = found.inner == "expert" and len(found.sizes) > 1  # (expert, unit)
        return replace(found, flat=units is not None and both)
    if "pos" not in address:
        address["pos"] = pictured(base)
    return place_of(model, base.soft, "embed")


def _asked_layers(wanted: Any, units: Any) -> Any:
    """The layers that are named, by themselves, in a mapping, or by units; None for all."""
    if units is not None:
        return sorted({one.layer for one in units}) or None
    if not isinstance(wanted, Mapping):
        return wanted
    named = [one if isinstance(one, (list, tuple)) else [one] for one in wanted.values()]
    return sorted({at for some in named for at in some if isinstance(at, int)}) or None


def pictured(base: Kept) -> list[Any]:
    """The labels of the positions that hold pictures.

    Raises:
        PromptError: there is none.
    """
    found = [base.soft.labels[0][i] for i in base.soft.is_picture[0].nonzero()[:, 0].tolist()]
    if not found:
        raise PromptError(
            "Site 'soft_prompt' is in pictures, and this prompt has none: give a Prompt with a"
            " picture, or another site."
        )
    return found


def layers_of(variants: Sequence[Variant]) -> list[int | None]:
    """Every layer that a variant changes."""
    return sorted({layer for v in variants for layer in v.at}, key=lambda layer: layer or 0)


def recovered(scores: Scores) -> Scores:
    """Scores of `patch`, scaled linearly to 0 at the corrupt run and 1 at the clean one.

    Raises:
        NumericsError: the metric is the same on both runs.
        AddressError: these scores do not come from a pair.
    """
    instance(scores, "scores", Scores, "what patching.patch returns")
    if "clean" not in scores.about or "corrupt" not in scores.about:
        raise AddressError(
            f"{scores!r} do not say what the clean and the corrupt run gave: only scores of a pair"
            " can be put on that scale."
        )
    clean, corrupt = (ends(scores, end) for end in ("clean", "corrupt"))
    if bool((clean == corrupt).any()):
        same = float(clean[clean == corrupt].flatten()[0])
        raise NumericsError(
            f"The metric is {same:.4g} on the clean and on the corrupt run: there is no effect"
            " to scale. Take another pair, or another metric."
        )
    values = (scores.values - corrupt) / (clean - corrupt)
    return Scores(values, scores.axes, scores.labels, {**scores.about, "quantity": "recovered"})


def _runs(
    model: HookedModel, pair: Pair, metric: Metric, direction: str
) -> tuple[Kept, Kept, dict[str, Any]]:
    """The run that is patched, the run that it is patched with, and the metric of both."""
    if direction not in DIRECTIONS:
        raise AddressError(f"There is no direction {direction!r}: write 'denoise' or 'noise'.")
    instance(pair, "pair", Pair, A_PAIR)
    clean, corrupt = (keep(model, soft) for soft in pair.read(model))
    told: dict[str, Any] = {
        name: float(numbers(metric, kept.logits[None])[0])
        for name, kept in (("clean", clean), ("corrupt", corrupt))
    }
    told |= {"prompt": clean.soft, "metric": name_of(metric)}
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    return base, source, told


def variants_at(
    model: HookedModel,
    where: Place,
    units: Sequence[Neuron | Head] | None,
    by: Sequence[str] | str | None,
    address: dict[str, Any],
) -> tuple[tuple[str, ...], dict[str, tuple[Any, ...]], list[Variant]]:
    """Axes, their labels, and a variant for every combination."""
    site, inner = where.site, where.inner
    default = ("layer", "head") if inner == "head" else ("layer", "pos")
    default = () if units is not None else tuple(a for a in default if a != "layer" or site.layered)
    each = read_by(by, default, where)
    wanted = read_address((), address)
    known = ["pos", *([inner] if inner else []), *(["layer"] if site.layered else [])]
    for axis in wanted:
        if axis not in known or (units is not None and axis != "pos"):
            raise AddressError(
                f"Site {site.name!r} is patched by {', '.join(known)}, not {axis!r}."
            )
    names, spots = groups(where.labels, wanted.get("pos"), "pos", "pos" in each)
    every_pos = "pos" not in wanted and "pos" not in each
    pos = [None] if every_pos else [tuple(spot) for spot in spots]
    if units is not None:
        axis, chosen = _single(model, where, units)
        kinds: list[tuple[str, tuple[Any, ...] | None, list[Any]]] = [(axis, tuple(units), chosen)]
    else:
        kinds = _layers_and_inner(model, where, wanted, each)
    parts = [part for part in (*kinds[:1], ("pos", names, pos), *kinds[1:]) if part[2]]
    axes = tuple(axis for axis, named, _ in parts if named is not None)
    labels = {axis: named for axis, named, _ in parts if named is not None}
    order = [axis for axis, _, _ in parts]
    combos = product(*(found for _, _, found in parts))
    return axes, labels, [_variant(dict(zip(order, combo, strict=True))) for combo in combos]


def _variant(at: dict[str, Any]) -> Variant:
    pos, layers = at.pop("pos"), at.pop("layer", (None,))
    chosen = next(iter(at.values()), None)
    return Variant(chosen if isinstance(chosen, dict) else dict.fromkeys(layers, chosen), pos)


def _single(
    model: HookedModel, where: Place, units: Sequence[Neuron | Head]
) -> tuple[str, list[dict[int, tuple[int]]]]:
    """The axis of single units, and the place of each."""
    kind = Head if where.inner == "head" else Neuron
    inner = where.inner or ""
    known = where.flat or inner in ("unit", "channel", "head")
    if not units:
        raise AddressError(
            "units=[] names no such units: give at least one, or leave units= out for all."
        )
    if not known or not all(isinstance(unit, kind) for unit in units):
        raise AddressError(
            f"Site {where.site.name!r} has no such units: give Neurons at 'neurons', Heads at 'z'."
        )
    check_tower(units, where.site.owner, where.site.name)
    if where.flat:
        return "neuron", _in_experts(model, where, units)
    layers = hooking.layers(model, where.site)
    share = readers(where.site, getattr(model, "cfg", None))
    found = []
    for unit in units:
        index = unit.unit if isinstance(unit, Neuron) else unit.head
        if min(unit.layer, index) < 0:
            raise AddressError(f"There is no {unit}: layers and {where.inner}s count from 0.")
        [layer] = places(layers, unit.layer, "layer")
        [index] = places(range(where.sizes[0] * share), index, inner)
        found.append({layers[layer]: (index // share,)})
    return "neuron" if kind is Neuron else "head", found


def _in_experts(
    model: HookedModel, where: Place, units: Sequence[Any]
) -> list[dict[int, tuple[int]]]:
    """The place of each unit among those of all experts in turn."""
    lm: Any = hooking.tower_at(model, where.site)
    check_expert([list(units)], where.site.axes, where.site.name)
    lm.units.find(model.name, units)
    return [{unit.layer: (unit.expert * where.sizes[1] + unit.unit,)} for unit in units]


def _layers_and_inner(
    model: HookedModel, where: Place, wanted: dict[str, Any], each: set[str]
) -> list[tuple[str, tuple[Any, ...] | None, list[Any]]]:
    site, inner = where.site, where.inner
    parts: list[tuple[str, tuple[Any, ...] | None, list[Any]]] = []
    if site.layered:
        every = hooking.layers(model, site)
        asked = wanted.get("layer", site.layer)
        names, found = groups(every, asked, "layer", "layer" in each)
        parts.append(("layer", names, [tuple(every[i] for i in some) for some in found]))
    else:
        parts.append(("layer", None, []))
    if inner and (inner in each or inner in wanted):
        names, found = groups(range(where.sizes[0]), wanted.get(inner), inner, inner in each)
        parts.append((inner, names, found))
    return parts
