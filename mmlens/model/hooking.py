"""Hooks on the towers of a model under one set of names, put in place for one call at a time.

Hooks are kept by the model that they were given to and attached to the shared HookPoints only while
that model runs, edits first: so an edited copy and its original never see each other's hooks, an
exception leaves nothing behind, and what a user's hook reads is already edited. A model that is
called inside a hook starts a separate run, without the hooks of the run around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.size_groups import present
from mmlens.runtime.hook_calls import DIRECTIONS, Hook, called, check_function, on_point, told
from mmlens.runtime.run import current
from mmlens.runtime.turns import alone
from mmlens.towers.dictionaries.hosting import splices
from mmlens.towers.language import attention_mask
from mmlens.values.arguments import choice, flag, function, shown
from mmlens.values.edit import Edit, Rows
from mmlens.values.errors import AddressError, CapabilityError, SiteError, nearest
from mmlens.values.labels import LM
from mmlens.values.maps import as_map, as_positions
from mmlens.values.prompt import Prompt
from mmlens.values.sites import MASK, SITES, Site, readers, tower_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


Pairs = Any
"""Pairs (hook name or filter of names, function), in a list, as TransformerLens takes them."""


def points(model: HookedModel) -> dict[str, Any]:
    """Every hook point that fires, by name, in the order in which the towers run."""
    return {name: point for tower in model.towers.values() for name, point in tower.points.items()}


def hooks_of(model: HookedModel, wanted: Pairs, dir: str, **options: Any) -> list[Hook]:
    """Pairs (name or filter, function) as hooks; the points are listed once for all of them.

    Raises:
        SiteError: what was given is no list of pairs, a name does not exist or never fires, a
            filter finds nothing, or a function could not be called as `fn(tensor, hook=...)`.
    """
    choice(dir, "dir", DIRECTIONS, error=SiteError)
    pairs = _pairs(wanted)
    known = points(model) if pairs else {}
    found = []
    for want, call in pairs:
        there = names(model, want, known)
        if not there:
            raise SiteError(
                f"The filter {told(want)} finds none of the {len(known)} hook points of"
                f" {model.name!r}, so its hook would never run: list(model.hook_dict) names them."
            )
        check_function(call, there[0])
        found += [Hook(name, call, dir, **options) for name in there]
    return found


def _pairs(wanted: Pairs) -> list[tuple[Any, Any]]:
    pairs = list(wanted) if isinstance(wanted, (list, tuple)) else None
    if pairs is None or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise SiteError(
            f"{shown(wanted)} is no list of hooks: write [(name, function), ...], with functions"
            " of (tensor, hook)."
        )
    return [(want, call) for want, call in pairs]


def names(
    model: HookedModel,
    wanted: Any,
    known: Mapping[str, Any] | None = None,
) -> list[str]:
    """The hook names that a name or a filter matches, each point once.

    Args:
        known: `points(model)`, where the caller has it.

    Raises:
        SiteError: a name that does not exist, or that never fires on this model.
    """
    known = points(model) if known is None else known
    if not isinstance(wanted, str):
        if not callable(wanted):
            raise SiteError(
                f"{shown(wanted)} names no hook: write a name, as in 'blocks.0.hook_resid_post',"
                " or a function of names."
            )
        function(wanted, "name", "a function of a name", takes=1, error=SiteError)
        meant = [name for name in known if flag(wanted(name), "what the function of names gives")]
        chosen = {id(known[name]): name for name in reversed(meant)}
        return [name for name in known if name in set(chosen.values())]
    lm: Any = model.towers.get(LM)
    if wanted in known or (lm is not None and attention_mask.layer_of(lm, wanted) is not None):
        return [wanted]
    if lm is not None and wanted in lm.every_point:
        raise SiteError(
            f"The hook {wanted!r} never fires on {model.name!r} (or waits for a set_use_...(True)),"
            f" so nothing would happen: {nearest(wanted, known)}"
        )
    raise SiteError(f"There is no hook {wanted!r} on {model.name!r}: {nearest(wanted, known)}")


@contextmanager
def attached(
    model: HookedModel, hooks: Sequence[Hook], prompts: Sequence[Prompt]
) -> Iterator[None]:
    """Attach edits and hooks to all towers; remove them at the end, also after an exception."""
    every = [*model.edit_hooks(prompts), *splices(model.towers.values()), *hooks]
    lm: Any = model.towers.get(LM)
    with alone(partial(_place, model, every), None if lm is None else lm.root):
        yield


def _place(model: HookedModel, every: Sequence[Hook], stack: ExitStack) -> None:
    cuts: dict[int, list[Callable[..., Any]]] = {}
    rest, towers = [], model.towers
    lm: Any = towers.get(LM)
    for hook in every:
        layer = None if lm is None else attention_mask.layer_of(lm, hook.name)
        if layer is None:
            rest.append(hook)
        else:
            cuts.setdefault(layer, []).append(partial(called(None, hook), hook=None))
    if lm is not None:
        stack.enter_context(attention_mask.tapped(lm, cuts, model.name))
    known = {name: towers[name].every_point for name in {tower_of(hook.name) for hook in rest}}
    for hook in rest:
        stack.enter_context(on_point(known[tower_of(hook.name)][hook.name], hook))


# -- edits ------------------------------------------------------------------------------------


def check_edit(model: HookedModel, edit: Edit) -> None:
    """Refuse an edit that could not act: a dead hook, a layer or unit that does not exist."""
    tower = tower_at(model, edit.site)
    here = _here(model, edit)
    chosen = here.layers(layers(model, edit.site))
    if edit.site.in_lm:
        tower.units.need_at(model.name, edit.site, chosen)
    for real in check_places(model, edit.site, chosen).values():
        here.fitted(real)
    if edit.site.in_lm:
        _check_written(model, edit, chosen)


def tower_at(model: HookedModel, site: Site) -> Any:
    """The tower that a site is in.

    Raises:
        SiteError: this model has none of that name.
    """
    if site.tower not in model.towers:
        raise SiteError(
            f"Site {site.name!r} is in the tower {site.tower!r}, and {model.name!r} has"
            f" {', '.join(map(repr, model.towers))}: {nearest(site.name, _names_of(model))}"
        )
    return model.towers[site.tower]


def _names_of(model: HookedModel) -> list[str]:
    return [name for name, site in SITES.items() if site.tower in model.towers]


def written(model: HookedModel, site: Site) -> bool:
    """Whether edits at a site act, as measured when the tower was wrapped."""
    if not site.in_lm or site.axes[-1] != "key" or site.of_crossing:
        return True
    return model.can("write:attn_mask" if site == MASK else "write:pattern")


def _check_written(model: HookedModel, edit: Edit, chosen: Sequence[int | None]) -> None:
    lm: Any = model.towers[LM]
    if edit.site == MASK and not written(model, edit.site):
        raise CapabilityError(
            f"{model.name!r} ignores cuts in its attention mask (measured: {lm.cut}),"
            " so nothing can be knocked out there: edit 'z' or 'pattern' of the heads instead."
        )
    if not written(model, edit.site):
        raise CapabilityError(
            f"{model.name!r} computes attention in a way that ignores edits of {edit.site.name!r}"
            " (measured when it was wrapped): edit 'z' of the head instead, as in Edit('z', ...)."
        )
    if edit.site.of_units:
        here = lm.units.layers[chosen[0] or 0]
        width = here.of_expert if edit.site.of_experts else here.width
        if edit.site.of_dictionary:
            width = lm.dictionaries[chosen[0]].dictionary.n_units
        units = [u for _, u in edit.address.get("pairs", ())]
        asked = edit.address.get("unit")
        units += [asked] if isinstance(asked, int) else []
        wrong = [u for u in units if not -width <= u < width]
        if wrong:
            raise AddressError(f"There is no unit {wrong[0]}: {model.name!r} has 0 to {width - 1}.")


def _here(model: HookedModel, edit: Edit) -> Edit:
    if not edit.site.in_lm:
        return edit
    cfg = tower_at(model, edit.site).cfg
    return edit.sharing(readers(edit.site, cfg), int(cfg.n_heads))


def check_places(
    model: HookedModel, site: Site, at: Sequence[int | None]
) -> dict[int | None, Site]:
    """The site with its real axes in each of these layers.

    Raises:
        SiteError: it never fires there. CapabilityError: its axes have no labels there.
    """
    tower, known, found = tower_at(model, site), points(model), {}
    for layer in at:
        names(model, site.at(layer), known)
        found[layer] = tower.site(site, layer)
    return found


def layers(model: HookedModel, site: Site) -> Sequence[int]:
    """The layers that have this site.

    In an encoder those before its feature layer; of cross-attention, experts and DeepStack those
    that have it, and of attention among positions those that attend to them.
    """
    tower = tower_at(model, site)
    every = range(tower.n_layers)
    if site.in_lm and not site.in_some_layers:
        among = ".attn." in site.point or site.point.endswith("hook_attn_out")
        return (attention_mask.layers_with(tower) if among else []) or every
    known = tower.points
    found = [layer for layer in every if site.at(layer) in known]
    if site.of_dictionary and not found:
        raise SiteError(
            f"No dictionary is attached to the tower {site.tower!r} of {model.name!r}, so there is"
            f" no {site.name!r}: write model.attach(mm.load_dictionary(folder), at=...)."
        )
    return found or every


def key_rows(model: HookedModel, prompts: Sequence[Prompt], site: Site) -> Rows:
    """The keys of an encoder's cross-attention, one row per picture; none at other sites."""
    if site.in_lm or not site.has_other_keys:
        return ()
    tower: Any = model.towers[site.tower]
    images = (image for prompt in prompts for image in range(len(prompt.pictures)))
    return tuple(tuple(tower.key_labels(image)) for image in images)


@dataclass(frozen=True)
class _Change:
    """An edit in one layer, the site as it really is there, and its labels in pictures."""

    edit: Edit
    layer: int | None
    real: Site
    rows: Rows | None
    keys: Rows = ()


def edit_hooks(model: HookedModel, prompts: Sequence[Prompt]) -> list[Hook]:
    """A hook per point at which the model has an edit."""
    by_point: dict[str, list[_Change]] = {}
    for edit in (_here(model, edit) for edit in model.edits):
        tower, site = model.towers[edit.site.tower], edit.site
        for layer in edit.layers(layers(model, site)):
            real = tower.site(site, layer)
            rows = None if site.in_lm else model.picture_rows(prompts, site, layer)
            keys = key_rows(model, prompts, site)
            change = _Change(edit.fitted(real), layer, real, rows, keys)
            by_point.setdefault(site.at(layer), []).append(change)
    return [Hook(name, partial(_apply, changes=some)) for name, some in by_point.items()]


def _apply(values: torch.Tensor, hook: Any, changes: Sequence[_Change]) -> torch.Tensor:
    run = current()
    beside = None if run is None else run.soft.picture_keys
    keys = () if beside is None else beside.labels
    out = values.clone()
    for one in filter(None, map(present, changes)):
        start = run.start if one.rows is None and run is not None else 0
        rows = one.rows if one.rows is not None else (run.soft.labels if run is not None else ())
        if one.edit.site.axes == one.real.axes:
            out = one.edit.apply_(out, one.layer, rows, start, one.keys or keys)
        else:  # a map, addressed by patches
            flat = as_positions(out, one.real.axes).clone()
            out = as_map(one.edit.apply_(flat, one.layer, rows, start), out, one.real.axes)
    return out
