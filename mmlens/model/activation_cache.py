"""Activations kept while a model runs, as TransformerLens' `run_with_cache` keeps them.

    cache[name] = the activation at `name`      cache[name + "_grad"] = its gradient

A cache is filled by ordinary hooks, of one call (`run_with_cache`), of a context
(`get_caching_hooks`) or until they are reset (`add_caching_hooks`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.hooking import names, points
from mmlens.runtime.casting import device_of
from mmlens.values.arguments import flag, function, several, shown
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    NumericsError,
    PromptError,
    SiteError,
)

if TYPE_CHECKING:
    from transformer_lens.utilities.slice import Slice

    from mmlens.model.hooked_model import HookedModel

Cache = dict[str, torch.Tensor]


def caching_hooks(
    model: HookedModel,
    names_filter: Any = None,
    incl_bwd: bool = False,
    device: Any = None,
    remove_batch_dim: bool = False,
    cache: Cache | None = None,
    pos_slice: Any = None,
    below: int | None = None,
) -> tuple[Cache, list[Any], list[Any]]:
    """A cache, and the forward and backward hooks that fill it.

    Args:
        names_filter: a hook name, a list of names, a function of names, or None for all.
        device: where the cache lies; by default where the activation is.
        cache: the dictionary to fill; a new one by default.
        pos_slice: the positions of the language model's activations that are kept.
        below: only hook points that run before this layer.

    Raises:
        SiteError: a name that does not exist or never fires, or, while running, one whose point
            hands on no tensor.
        ArgumentError: `pos_slice` is no position, range or list. CapabilityError: there is no such
            device.
    """
    device, positions = device_of(device), _slice(pos_slice)
    found: Cache = {} if cache is None else cache

    def keep(tensor: Any, hook: Any, suffix: str = "") -> None:
        if not isinstance(tensor, torch.Tensor):  # Jamba's state space layers hand on a tuple
            if isinstance(names_filter, (str, list, tuple)):
                raise SiteError(
                    f"{hook.name!r} hands on a {type(tensor).__name__} and no tensor, which a cache"
                    " does not keep: leave it out, or read it by a hook of your own,"
                    " run_with_hooks(prompt, [(name, function)])."
                )
            return
        kept = _at(tensor.detach(), hook.name, positions)
        kept = kept[0] if remove_batch_dim and kept.shape[0] == 1 else kept
        found[hook.name + suffix] = kept if device is None else kept.to(device)

    chosen = _chosen(model, names_filter)
    if below is not None:
        chosen = [name for name in chosen if _runs_before(name, below)]
    bwd = [(name, partial(keep, suffix="_grad")) for name in chosen] if incl_bwd else []
    return found, [(name, keep) for name in chosen], bwd


def run_with_cache(
    model: HookedModel,
    input: Any,
    names_filter: Any,
    device: Any,
    incl_bwd: bool,
    remove_batch_dim: bool,
    as_object: bool,
    pos_slice: Any,
    contexts: tuple[bool, bool],
    below: int | None,
    options: dict[str, Any],
) -> tuple[Any, Any]:
    """See `HookedModel.run_with_cache`."""
    from transformer_lens.ActivationCache import ActivationCache

    cache, fwd, bwd = caching_hooks(
        model, names_filter, incl_bwd, device, False, None, pos_slice, below
    )
    with model.hooks(fwd, bwd, *contexts):
        out = model(input, **options)
        if incl_bwd:
            if not isinstance(out, torch.Tensor) or out.numel() != 1 or not out.requires_grad:
                raise NumericsError(
                    "incl_bwd=True needs one number to differentiate: write return_type='loss',"
                    " with gradients enabled."
                )
            out.backward()
    kept = ActivationCache(cache, model)
    if remove_batch_dim:
        many = max((len(x) for name, x in cache.items() if name.startswith("blocks.")), default=1)
        if many > 1:
            raise PromptError(
                f"remove_batch_dim=True is for one prompt, and this cache is of {many}: leave it"
                " out, or run one prompt."
            )
        kept = kept.remove_batch_dim()
    return out, kept if as_object else kept.cache_dict


def _runs_before(name: str, layer: int) -> bool:
    if name.startswith(("ln_final", "unembed")):
        return False
    return not name.startswith("blocks.") or int(name.split(".")[1]) < layer


def _slice(pos_slice: Any) -> Slice | None:
    """TransformerLens' `pos_slice`: a position, (start, stop) or a list of positions."""
    if pos_slice is None:
        return None
    from transformer_lens.utilities.slice import Slice

    try:
        return Slice.unwrap(pos_slice)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"pos_slice={shown(pos_slice)}: write a position, (start, stop), or a list of them."
        ) from None


def _at(tensor: torch.Tensor, name: str, positions: Slice | None) -> torch.Tensor:
    """The language model's activation at these positions; other towers' are kept whole."""
    if positions is None or name.startswith(("vision.", "projection.")):
        return tensor
    dim = -2 if name.endswith(("hook_pattern", "hook_attn_scores")) else 1
    try:
        return positions.apply(tensor, dim=dim)
    except (IndexError, TypeError):
        raise AddressError(
            f"pos_slice={shown(positions.slice)} is not within the {tensor.shape[dim]} positions of"
            f" {name!r}."
        ) from None


def _chosen(model: HookedModel, names_filter: Any) -> list[str]:
    if names_filter is None:
        return list(points(model))
    if callable(names_filter):
        function(names_filter, "names_filter", "a function of a name", takes=1, error=SiteError)
        return [name for name in points(model) if flag(names_filter(name), "names_filter(name)")]
    wanted = (
        [names_filter]
        if isinstance(names_filter, str)
        else several(
            names_filter,
            "names_filter",
            least=0,
            what="hook name, a function or a list of names",
            error=SiteError,
        )
    )
    known = points(model)
    return [name for want in wanted for name in names(model, want, known)]
