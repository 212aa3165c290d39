"""Hooks on the three parts of a bridge under one set of names, put in place for one call at a time.

Hooks are kept by the model that they were given to and attached to the shared HookPoints only while
that model runs, edits first: so an edited copy and its original never see each other's hooks, an
exception leaves nothing behind, and what a user's hook reads is already edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens import masks
from mmlens.edit import Edit, Rows
from mmlens.errors import AddressError, CapabilityError, NumericsError, SiteError, nearest
from mmlens.prompt import Prompt
from mmlens.run import current
from mmlens.sites import MASK, Site

if TYPE_CHECKING:
    from mmlens.model import HookedVLM


Pairs = Sequence[tuple[Any, Callable[..., Any]]]
"""(hook name or filter of names, function) as TransformerLens takes them."""


@dataclass(frozen=True)
class Hook:
    """`call(tensor, hook)` at the hook point `name`, in the forward or the backward pass."""

    name: str
    call: Callable[..., Any]
    dir: str = "fwd"


class Named:
    """What a hook function gets as `hook`: the point under the name that was asked for."""

    def __init__(self, name: str, point: Any) -> None:
        self.name, self._point = name, point

    def layer(self) -> int:
        """The layer in the name `blocks.3...`."""
        parts = self.name.split(".")
        return int(parts[parts.index("blocks") + 1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._point, name)


def points(model: HookedVLM) -> dict[str, Any]:
    """Every hook point that fires, by name, in the order in which the parts run."""
    found: dict[str, Any] = {}
    if model.vision is not None:
        found |= {f"vision.{name}": point for name, point in model.vision.hook_dict.items()}
    if model.projection is not None:
        found["projection.hook_out"] = model.hook_projection
    fires = model.lm.can.fires
    return found | {name: p for name, p in model.root.hook_dict.items() if name in fires}


def hooks_of(model: HookedVLM, wanted: Pairs, dir: str) -> list[Hook]:
    """Pairs (name or filter, function) as hooks; the points are listed once for all of them."""
    known = points(model) if wanted else {}
    return [Hook(name, call, dir) for want, call in wanted for name in names(model, want, known)]


def names(
    model: HookedVLM,
    wanted: str | Callable[[str], bool],
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
        chosen = {id(known[name]): name for name in reversed(list(known)) if wanted(name)}
        return [name for name in known if name in set(chosen.values())]
    if wanted in known or masks.layer_of(model, wanted) is not None:
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
    cuts: dict[int, list[Callable[..., Any]]] = {}
    for hook in every:
        layer = masks.layer_of(model, hook.name)
        if layer is not None:
            cuts.setdefault(layer, []).append(partial(hook.call, hook=Named(hook.name, None)))
    every = [hook for hook in every if masks.layer_of(model, hook.name) is None]
    known = points(model) if any(part(h.name) != "lm" for h in every) else {}
    lm = model.root.hook_dict if any(part(h.name) == "lm" for h in every) else {}
    with ExitStack() as stack:
        stack.enter_context(masks.tapped(model, cuts))
        for hook in every:
            if part(hook.name) != "lm":
                stack.enter_context(_on_point(known[hook.name], hook))
        for direction in ("fwd", "bwd"):
            ours = [
                (h.name, _named(lm[h.name], h))
                for h in every
                if part(h.name) == "lm" and h.dir == direction
            ]
            if ours:
                stack.enter_context(model.root.hooks(**{f"{direction}_hooks": ours}))
        yield


def part(name: str) -> str:
    """The part of the bridge that a hook name belongs to: "vision", "projection" or "lm"."""
    first = name.split(".")[0]
    return first if first in ("vision", "projection") else "lm"


def _named(point: Any, hook: Hook) -> Callable[..., Any]:
    view = Named(hook.name, point)

    def call(tensor: torch.Tensor, hook: Any, _call: Any = hook.call) -> Any:
        return _call(tensor, hook=view)

    return call


@contextmanager
def _on_point(point: Any, hook: Hook) -> Iterator[None]:
    point.add_hook(_named(point, hook), dir=hook.dir)
    kept = point.fwd_hooks if hook.dir == "fwd" else point.bwd_hooks
    handle = kept[-1]
    try:
        yield
    finally:
        handle.hook.remove()
        kept[:] = [other for other in kept if other is not handle]


# -- edits ------------------------------------------------------------------------------------


def check_edit(model: HookedVLM, edit: Edit) -> None:
    """Refuse an edit that could not act: a dead hook, a layer or unit that does not exist."""
    for layer in edit.layers(layers(model, edit.site)):
        names(model, edit.site.at(layer))
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
        units = [u for _, u in edit.address.get("pairs", ())]
        asked = edit.address.get("unit")
        units += [asked] if isinstance(asked, int) else []
        wrong = [u for u in units if not -model.cfg.d_mlp <= u < model.cfg.d_mlp]
        if wrong:
            raise AddressError(
                f"There is no unit {wrong[0]}: {model.name!r} has 0 to {model.cfg.d_mlp - 1}."
            )


def layers(model: HookedVLM, site: Site) -> Sequence[int]:
    """The layers that have this site: of an encoder those before its feature layer."""
    if site.part != "vision":
        return range(model.cfg.n_layers)
    every = range(model.vision.n_layers)
    known = points(model)
    return [layer for layer in every if site.at(layer) in known] or every


def _edit_hooks(model: HookedVLM, prompts: Sequence[Prompt]) -> list[Hook]:
    by_point: dict[str, list[tuple[Edit, int | None]]] = {}
    for edit in model.edits:
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
    from mmlens.embedding import picture_labels

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


# -- reading ----------------------------------------------------------------------------------


def run_with_cache(
    model: HookedVLM,
    input: Any,
    names_filter: Any,
    device: Any,
    incl_bwd: bool,
    remove_batch_dim: bool,
    as_object: bool,
    pos_slice: Any,
    options: dict[str, Any],
) -> tuple[Any, Any]:
    """See `HookedVLM.run_with_cache`."""
    from transformer_lens.ActivationCache import ActivationCache

    chosen = _chosen(model, names_filter)
    cache: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any, suffix: str = "") -> None:
        tensor = _at(tensor.detach(), hook.name, pos_slice)
        cache[hook.name + suffix] = tensor.to(device) if device else tensor

    stop = options.get("stop_at_layer")
    if stop is not None:
        last = stop if stop >= 0 else model.cfg.n_layers + stop
        chosen = [n for n in chosen if not n.startswith("blocks.") or int(n.split(".")[1]) < last]
        chosen = [n for n in chosen if not n.startswith(("ln_final", "unembed"))]
    bwd = [(name, partial(keep, suffix="_grad")) for name in chosen] if incl_bwd else []
    with model.hooks([(name, keep) for name in chosen], bwd):
        out = model(input, **options)
        if incl_bwd:
            if not isinstance(out, torch.Tensor) or out.numel() != 1 or not out.requires_grad:
                raise NumericsError(
                    "incl_bwd=True needs one number to differentiate: write return_type='loss',"
                    " with gradients enabled."
                )
            out.backward()
    kept = ActivationCache(cache, model)
    kept = kept.remove_batch_dim() if remove_batch_dim else kept
    return out, kept if as_object else kept.cache_dict


def _at(tensor: torch.Tensor, name: str, pos_slice: Any) -> torch.Tensor:
    """These positions of the language model's activation, as TransformerLens' `pos_slice`."""
    if pos_slice is None or name.startswith(("vision.", "projection.")):
        return tensor
    from transformer_lens.utilities.slice import Slice

    by_query = name.endswith(("hook_pattern", "hook_attn_scores"))
    return Slice.unwrap(pos_slice).apply(tensor, dim=-2 if by_query else 1)


def _chosen(model: HookedVLM, names_filter: Any) -> list[str]:
    if names_filter is None:
        return list(points(model))
    if callable(names_filter):
        return [name for name in points(model) if names_filter(name)]
    wanted = [names_filter] if isinstance(names_filter, str) else list(names_filter)
    known = points(model)
    return [name for want in wanted for name in names(model, want, known)]
