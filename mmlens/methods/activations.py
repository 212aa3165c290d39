"""Activations at a site, with labels.

    activations(model, prompt, "neurons", Neuron(3, 17))     # Scores(pos)
    activations(model, prompt, best.neuron)                  # Scores(neuron, pos)
    activations(model, prompt, "resid_post", layer=4)        # Scores(pos, dim)
    activations(model, prompt, "vision.neurons", layer=1)    # inside the vision encoder

Only the addressed values are kept, hook by hook; nothing else is cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.denoising_activations import Kept, denoising_activations, stacked
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import own_site, unit_site
from mmlens.model.size_groups import asking, crops_now
from mmlens.model.targets import finite
from mmlens.values.addresses import POSITIONS, check_tower, places, read_address
from mmlens.values.errors import AddressError, PromptError
from mmlens.values.joined_labels import joined, same_layout
from mmlens.values.labels import LM, MULTIMODAL, TEXT, Head, Marker, Neuron, Patch
from mmlens.values.maps import as_positions, inner_of, is_map
from mmlens.values.scores import Scores
from mmlens.values.sites import Site, readers, shared
from mmlens.values.sites import site as site_of
from mmlens.values.unit_lists import has_units, plain_address

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

Rows = tuple[tuple[Any, ...], ...]
_KINDS = (Neuron, Head)


@needs()
def activations(
    model: HookedModel, prompt: Any, site: Any = None, *address: Any, **by_axis: Any
) -> Scores:
    """The activations at a site: Scores(prompt, layer, the site's axes), as narrowed.

    Args:
        prompt: a Prompt, text or SoftPrompt; several of one layout give a leading axis `prompt`
            (inside the vision encoder: `picture`). Where their words differ, the label of a
            position is all of them, " dog | cat".
        site: a site name, or a full hook name; by default "neurons" of the language model, or of
            the encoder that reads the prompt. A map of a convolution has the axes channel, row and
            col; where patches are named (`pos=Patch`), it has pos and channel. Neurons (or Heads)
            can stand here without a site: theirs.
        address: labels that narrow it, as in `Scores.sel`; inside the encoder `picture` is the
            number of a crop, which is needed where crops have several sizes. Several Neurons, a
            list or table of them, give one axis, `neuron`.

    Raises:
        SiteError, AddressError: no such site or label. PromptError: layouts differ.
        CapabilityError: units of a layer that has none (a mixture of experts).
    """
    if model.can("denoise"):
        found, told, where, wanted = _read_steps(model, prompt, site, address, by_axis)
        return stacked(found, told, where, layer=wanted.get("layer"), step=wanted.get("step"))
    if has_units(site):
        site, address = None, (site, *address)
    parts = plain_address(address)
    units = next((part for part in parts if isinstance(part, list)), None)
    if site is None and (named := [part for part in parts if isinstance(part, _KINDS)] or units):
        site = _site_of(model, named[0])
    if units is None:
        wanted, layers, kept, told = _read(model, prompt, site, parts, by_axis)
        return _stack(kept, layers, wanted, told)
    rest = [part for part in parts if part is not units]
    every = _around(model, units, site_of(site or own_site(model, "neurons", prompt).name))
    wanted, layers, kept, told = _read(model, prompt, site, rest, {**every, **by_axis})
    return _stack(kept, layers, wanted, told).sel(units)


def _site_of(model: HookedModel, unit: Any) -> str:
    """The site of a unit's own activation."""
    if isinstance(unit, Neuron):
        return unit_site(model, unit).name
    return "z" if unit.tower == LM else f"{unit.tower}.z"


def _around(model: HookedModel, units: list[Any], where: Site) -> dict[str, list[int]]:
    """The labels on each axis among which several units are."""
    check_tower([units], where.owner, where.name)
    cfg = hooking.tower_at(model, where).cfg if where.in_lm else None
    found: dict[str, set[int]] = {}
    for unit in units:
        for axis, at in read_address([unit], {}, readers(where, cfg)).items():
            found.setdefault(axis, set()).add(at)
    return {axis: sorted(there) for axis, there in found.items()}


@needs()
def activations_by_layer(
    model: HookedModel, prompt: Any, site: str | None = None, *address: Any, **by_axis: Any
) -> dict[int, Scores]:
    """The same layer by layer, from one forward pass; the layers may differ in shape.

    Raises:
        AddressError: the site has no layers. What `activations` raises besides.
    """
    if model.can("denoise"):
        found, told, where, _ = _read_steps(model, prompt, site, address, by_axis)
        each = {
            at: {n: {at: by[at]} for n, by in found.items()} for at in next(iter(found.values()))
        }
        return {at: stacked(one, told, where, layer=at) for at, one in each.items()}
    _, layers, kept, told = _read(model, prompt, site, address, by_axis)
    if layers == [None]:
        raise AddressError(f"The site {site!r} has no layers: ask activations(model, prompt, ...).")
    return {
        layer: Scores(kept[layer].values, kept[layer].axes, kept[layer].labels, told)
        for layer in layers
        if layer is not None
    }


def _read_steps(
    model: Any, prompt: Any, site: str | None, address: Any, by_axis: Mapping[str, Any]
) -> tuple[Kept, dict[str, Any], Site, dict[str, Any]]:
    """Of a diffusion model: what was read, where it comes from, the site and the narrowing."""
    where = site_of("denoiser.neurons" if site is None else site)
    check_tower(address, where.tower, where.name)
    wanted = read_address(address, by_axis)
    if where.layer is not None:
        wanted.setdefault("layer", where.layer)
    return *denoising_activations(model, prompt, where, wanted), where, wanted


def _read(
    model: HookedModel, prompt: Any, site: str | None, address: Any, by_axis: Mapping[str, Any]
) -> tuple[dict[str, Any], list[int | None], dict[int | None, Scores], dict[str, Any]]:
    """The narrowing, the layers, the activations of each, and where they come from."""
    site = own_site(model, "neurons", prompt).name if site is None else site
    where = site_of(site)
    check_tower(address, where.owner, site)
    tower = hooking.tower_at(model, where)
    cfg = tower.cfg if where.in_lm else None
    wanted = read_address(address, by_axis, readers(where, cfg))
    if where.layer is not None:
        wanted.setdefault("layer", where.layer)
    layers = _layers(model, where, wanted)
    if where.in_lm:
        tower.units.need_at(model.name, where, layers)
    real = hooking.check_places(model, where, layers)
    names = {where.at(layer): layer for layer in layers}
    kept: dict[int | None, Scores] = {}

    with torch.no_grad():
        reading = model.read(prompt) if where.in_lm else prompt
        rows = {layer: _rows(model, reading, where, layer) for layer in layers}
        for several in (some for layer in layers for some in rows[layer].values()):
            _common(several, _batch(where), wanted)
        alone = not model.watches_vision  # other hooks do not ask which crops they see

        def keep(tensor: torch.Tensor, hook: Any) -> None:
            layer, crops = names[hook.name], crops_now()
            here, of, inner = tensor, rows[layer], wanted
            if crops is not None:
                crop = range(len(of["pos"]))[wanted["picture"]]
                if crop not in crops:
                    return
                here = tensor[[crops.index(crop)]]
                of = {axis: (labels[crop],) for axis, labels in of.items()}
                inner = {axis: want for axis, want in wanted.items() if axis != "picture"}
            kept[layer] = _label(here, where, real[layer], of, inner)

        with model.hooks(fwd_hooks=[(name, keep) for name in names]), asking(alone):
            if where.in_lm:
                last = max((layer for layer in layers if layer is not None), default=None)
                stop = None if last is None or last + 1 >= tower.n_layers else last + 1
                model(reading, return_type=None, stop_at_layer=stop)
            else:
                model.run_to(where.tower, prompt)
    for layer, scores in kept.items():
        _no_nan(scores.values, where, layer)
    told = about(model, method="activations", site=site, prompt=reading, address=wanted)
    told |= shared(where, cfg) | ({} if where.owner == LM else {"tower": where.owner})
    return wanted, layers, kept, told


def _batch(where: Site) -> str:
    """The name of the batch axis at a site."""
    return "prompt" if where.in_lm or where.tower in (TEXT, MULTIMODAL) else "picture"


def _no_nan(values: torch.Tensor, where: Site, layer: int | None) -> None:
    """Refuse NaN, and infinity except where a mask causes it (attention scores and masks)."""
    masked = where.axes[-1] == "key"
    here = f"{where.name!r}" + ("" if layer is None else f" in layer {layer}")
    finite(values.masked_fill(values.isinf(), 0.0) if masked else values, f"activations at {here}")


def _layers(model: HookedModel, where: Site, wanted: Mapping[str, Any]) -> list[int | None]:
    if not where.layered:
        return [None]
    every = hooking.layers(model, where)  # some sites are not in the first layers
    return [every[place] for place in places(every, wanted.get("layer"), "layer")]


def _rows(model: HookedModel, reading: Any, where: Site, layer: int | None) -> dict[str, Rows]:
    """For each axis of positions its labels, per row of the batch."""
    keys: Any = ()
    if where.in_lm:
        beside = reading.picture_keys
        rows, keys = reading.labels, () if beside is None else beside.labels
    else:
        prompts = model.prompts_of(reading)
        rows = model.picture_rows(prompts, where, layer)
        keys = hooking.key_rows(model, prompts, where)
    if not rows or (where.in_lm and where.of_crossing and not keys):
        what = {TEXT: "texts", MULTIMODAL: "pairs of a picture and a text"}
        what = what.get(where.tower, "pictures")
        raise PromptError(f"Site {where.name!r} is read from {what}, and this prompt has none.")
    return dict.fromkeys(POSITIONS, rows) | ({"key": keys} if where.has_other_keys else {})


def _common(rows: Rows, batch: str, wanted: Mapping[str, Any]) -> tuple[Any, ...]:
    """One label per position for every row; where rows have different words, all of them joined.

    Raises:
        PromptError: layouts differ.
    """
    one = wanted.get(batch)
    if isinstance(one, int) and -len(rows) <= one < len(rows):
        return rows[one]
    if len(rows) == 1:
        return tuple(rows[0])
    if batch == "picture":
        rows = tuple(map(_of_one_picture, rows))
        if not same_layout(rows):
            raise PromptError(
                f"The encoder reads {len(rows)} pictures or crops of several sizes here: ask for"
                " one of them by its number, as in picture=0, or picture=-1 for the last."
            )
    return joined(rows)


def _of_one_picture(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Labels without the number of the picture or crop, which the batch axis has."""
    inside = (Patch, Marker)
    return tuple(replace(x, image=0, crop=0) if isinstance(x, inside) else x for x in row)


def _label(
    tensor: torch.Tensor,
    where: Site,
    real: Site,
    rows: Mapping[str, Rows],
    wanted: Mapping[str, Any],
) -> Scores:
    batch, axes = _batch(where), real.axes
    inner = {axis: want for axis, want in wanted.items() if axis != "layer"}
    values = tensor.detach()
    if is_map(axes):
        channel = inner_of(axes)
        inner = {channel if a in ("unit", "dim", "channel") else a: w for a, w in inner.items()}
        if "pos" in inner:
            values, axes = as_positions(values, axes), ("pos", channel)
    known = {axis: _common(rows[axis], batch, inner) for axis in axes if axis in POSITIONS}
    scores = Scores(values, (batch, *axes), known)
    for axis, labels in known.items():  # padding is left out
        read = places(labels, None, axis)
        scores = scores.sel(**{axis: slice(None)}) if len(read) < len(labels) else scores
    scores = scores.sel(**{batch: 0}) if len(rows["pos"]) == 1 else scores
    scores = scores.sel(**inner)
    own = scores.values  # a view is copied: later layers may write over what it shows
    is_view = own.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    return Scores(own.clone() if is_view else own, scores.axes, scores.labels)


def _stack(
    kept: dict[int | None, Scores],
    layers: list[int | None],
    wanted: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Scores:
    first = kept[layers[0]]
    single = layers == [None] or isinstance(wanted.get("layer"), int)
    if single:
        return Scores(first.values, first.axes, first.labels, about)
    if len({(kept[at].axes, kept[at].values.shape) for at in layers}) > 1:
        raise AddressError(
            f"The layers of {about['site']!r} hold values of different shapes: ask about one layer,"
            " as in layer=3."
        )
    values = torch.stack([kept[layer].values.to(first.values.device) for layer in layers])
    return Scores(values, ("layer", *first.axes), {**first.labels, "layer": tuple(layers)}, about)
