"""Hooks on the three parts of a bridge under one set of names, put in place for one call at a time.

Hooks are kept by the model that they were given to and attached to the shared HookPoints only while
that model runs, edits first: so an edited copy and its original never see each other's hooks, an
exception leaves nothing behind, and what a user's hook reads is already edited. A call of
a model inside a hook is a run of its own: the hooks of the run around it have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.reading import picture_labels
from mmlens.runtime.hook_calls import DIRECTIONS, Hook, called, check_function, on_point, told
from mmlens.runtime.run import current
from mmlens.runtime.turns import alone
from mmlens.towers.language import attention_mask
from mmlens.values.arguments import choice, shown
from mmlens.values.edit import Edit, Rows
from mmlens.values.errors import AddressError, CapabilityError, SiteError, nearest
from mmlens.values.prompt import Prompt
from mmlens.values.sites import MASK, Site, readers

if TYPE_CHECKING:
    from mmlens.model.hooked import HookedVLM


Pairs = Any
"""Pairs (hook name or filter of names, function), in a list, as TransformerLens takes them."""


def points(model: HookedVLM) -> dict[str, Any]:
    """Every hook point that fires, by name, in the order in which the parts run."""
    found: dict[str, Any] = {}
    if model.vision is not None:
        found |= {f"vision.{name}": point for name, point in model.vision.hook_dict.items()}
    if model.projection is not None:
        found["projection.hook_out"] = model.hook_projection
    fires = model.lm.can.fires
    return found | {name: p for name, p in model.root.hook_dict.items() if name in fires}


def hooks_of(model: HookedVLM, wanted: Pairs, dir: str, **options: Any) -> list[Hook]:
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
    model: HookedVLM,
    wanted: Any,
    known: Mapping[str, Any] | None = None,
) -> list[str]:
    """The hook names that a name or a filter means, each point once.

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
        chosen = {id(known[name]): name for name in reversed(list(known)) if wanted(name)}
        return [name for name in known if name in set(chosen.values())]
    if wanted in known or attention_mask.layer_of(model.lm, wanted) is not None:
        return [wanted]
    if wanted in model.root.hook_dict:
        raise SiteError(
            f"The hook {wanted!r} never fires on {model.name!r} (or waits for a set_use_...(True)),"
            f" so nothing would happen: {nearest(wanted, known)}"
        )
    raise SiteError(f"There is no hook {wanted!r} on {model.name!r}: {nearest(wanted, known)}")


@contextmanager
def attached(model: HookedVLM, hooks: Sequence[Hook], prompts: Sequence[Prompt]) -> Iterator[None]:
    """Edits and hooks on all three parts, taken away at the end whatever happens."""
    if len(prompts) > 1:
        _ = model.lm.padded  # measured before anything is attached; `embed` asks for it
    every = [*_edit_hooks(model, prompts), *hooks]
    with alone(partial(_place, model, every), model.root):
        yield


def _place(model: HookedVLM, every: Sequence[Hook], stack: ExitStack) -> None:
    cuts: dict[int, list[Callable[..., Any]]] = {}
    rest = []
    for hook in every:
        layer = attention_mask.layer_of(model.lm, hook.name)
        if layer is None:
            rest.append(hook)
        else:
            cuts.setdefault(layer, []).append(partial(called(None, hook), hook=None))
    known = points(model) if any(part(h.name) != "lm" for h in rest) else {}
    lm = model.root.hook_dict if any(part(h.name) == "lm" for h in rest) else {}
    stack.enter_context(attention_mask.tapped(model.lm, cuts, model.name))
    for hook in rest:
        point = lm[hook.name] if part(hook.name) == "lm" else known[hook.name]
        stack.enter_context(on_point(point, hook))


def part(name: str) -> str:
    """The part of the bridge that a hook name belongs to: "vision", "projection" or "lm"."""
    first = name.split(".")[0]
    return first if first in ("vision", "projection") else "lm"


# -- edits ------------------------------------------------------------------------------------


def check_edit(model: HookedVLM, edit: Edit) -> None:
    """Refuse an edit that could not act: a dead hook, a layer or unit that does not exist."""
    chosen = _here(model, edit).layers(layers(model, edit.site))
    model.lm.units.need_at(model.name, edit.site, chosen)
    check_places(model, edit.site, chosen)
    if edit.site == MASK and not model.lm.cut.exact:
        raise CapabilityError(
            f"{model.name!r} does not obey a cut in its attention mask (measured: {model.lm.cut}),"
            " so nothing can be knocked out there: edit 'z' or 'pattern' of the heads instead."
        )
    pattern = edit.site.part == "lm" and edit.site.axes[-1] == "key" and edit.site != MASK
    if pattern and not model.lm.can.pattern_writable:
        raise CapabilityError(
            f"{model.name!r} computes attention in a way that ignores edits of {edit.site.name!r}"
            " (measured when it was wrapped): edit 'z' of the head instead, as in Edit('z', ...)."
        )
    if edit.site.axes[-1] == "unit" and edit.site.part == "lm":
        width = model.lm.units.layers[chosen[0] or 0].width
        units = [u for _, u in edit.address.get("pairs", ())]
        asked = edit.address.get("unit")
        units += [asked] if isinstance(asked, int) else []
        wrong = [u for u in units if not -width <= u < width]
        if wrong:
            raise AddressError(f"There is no unit {wrong[0]}: {model.name!r} has 0 to {width - 1}.")


def _here(model: HookedVLM, edit: Edit) -> Edit:
    return edit.sharing(readers(edit.site, model.cfg), int(model.cfg.n_heads))


def check_places(model: HookedVLM, site: Site, at: Sequence[int | None]) -> None:
    """Refuse a site that never fires, or that has no place for each patch of the encoder."""
    for layer in at:
        for name in names(model, site.at(layer)):
            if site.part == "vision":
                model.vision.check_labels(name.removeprefix("vision."))


def layers(model: HookedVLM, site: Site) -> Sequence[int]:
    """The layers that have this site: of an encoder those before its feature layer."""
    if site.part != "vision":
        return range(model.cfg.n_layers)
    every = range(model.vision.n_layers)
    known = points(model)
    return [layer for layer in every if site.at(layer) in known] or every


def _edit_hooks(model: HookedVLM, prompts: Sequence[Prompt]) -> list[Hook]:
    by_point: dict[str, list[tuple[Edit, int | None]]] = {}
    for edit in (_here(model, edit) for edit in model.edits):
        for layer in edit.layers(layers(model, edit.site)):
            by_point.setdefault(edit.site.at(layer), []).append((edit, layer))
    return [
        Hook(name, partial(_apply, edits=edits, labels=_picture_rows(model, edits, prompts)))
        for name, edits in by_point.items()
    ]


def _picture_rows(
    model: HookedVLM, edits: Sequence[tuple[Edit, int | None]], prompts: Sequence[Prompt]
) -> Rows | None:
    """Labels of the positions inside the vision tower and the projection, one row per picture."""
    site = edits[0][0].site
    if site.part == "lm":
        return None
    inside = site.part == "vision" and site.layered
    return picture_labels(model, prompts, with_prefix=inside)


def _apply(
    values: torch.Tensor,
    hook: Any,
    edits: Sequence[tuple[Edit, int | None]],
    labels: Rows | None,
) -> torch.Tensor:
    run = current()
    start = run.start if labels is None and run is not None else 0
    rows = labels if labels is not None else (run.soft.labels if run is not None else ())
    out = values.clone()
    for edit, layer in edits:
        out = edit.apply_(out, layer, rows, start)
    return out
