"""The attention mask as a hook point, where attention can be cut on every family.

An edited pattern has to be normalized again, and in a plain TransformerLens bridge it may be
read-only. Every eager kernel adds the mask of its attention module, so mmlens hooks that:

    scores[head, query, key] + mask[head, query, key]  ->  softmax  ->  pattern

`blocks.L.attn.hook_mask` is Float[batch, head, query, key], 0 where a query sees a key and very
negative where it does not; `Edit("attn_mask", -inf, query=..., key=...)` cuts. A position always
attends to itself, whatever is written, because a softmax over no keys is undefined. The point
exists only while something is attached to it, and is found by its name alone, never by a filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.runtime.run import current
from mmlens.values.errors import CapabilityError
from mmlens.values.sites import MASK, SITES

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

Call = Callable[..., Any]
Mask = Float[Tensor, "batch head query key"]
FLOOR = torch.finfo(torch.float32).min
"""What a mask adds where a query does not see a key, at the least."""


def layer_of(lm: LanguageModel, name: str) -> int | None:
    """The layer whose mask this hook name denotes, or None for another hook."""
    if not name.endswith(MASK.point.rpartition("}")[2]):
        return None
    return next((i for i in range(lm.cfg.n_layers) if MASK.at(i) == name), None)


def layers_with(lm: LanguageModel) -> list[int]:
    """The layers that attend among positions; one that reads pictures instead may not."""
    every = range(int(lm.cfg.n_layers))
    if not lm.is_bridge:
        return list(every)
    return [at for at in every if getattr(lm.root.blocks[at], "attn", None) is not None]


def keep_finite(blocks: Iterable[Any]) -> None:
    """Let padding see something in float64, where kernels of transformers take softmax in float32.

    Their masks hold the lowest number of the model's dtype, which is -inf in float32, so that the
    softmax of a query that sees no key (left padding) is NaN, and with it every position behind.

    Args:
        blocks: of a bridge.
    """
    for block in blocks:
        attention = _attention(block)
        if attention is not None:
            attention.register_forward_pre_hook(_bounded, with_kwargs=True)


def _bounded(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    mask = kwargs.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.float64:
        return None
    return args, {**kwargs, "attention_mask": mask.clamp(min=FLOOR)}


@contextmanager
def tapped(
    lm: LanguageModel, calls: Mapping[int, Sequence[Call]], name: str = "the language model"
) -> Iterator[None]:
    """Within this context the attention of these layers runs with its mask passed through `calls`.

    Args:
        calls: per layer, functions mask -> mask (or None for "unchanged").
        name: of the model, for error messages.

    A layer that reads pictures in place of the words before it has no edge among positions, so
    that nothing is cut there, unless every layer that is asked is one.

    Raises:
        CapabilityError: while running, where an attention module takes no additive mask.
    """
    attend = [at for at in calls if not lm.is_bridge or _attention(lm.root.blocks[at]) is not None]
    with ExitStack() as stack:
        for layer, functions in calls.items():
            if lm.is_bridge:
                tap = _Tap(functions, name, int(lm.cfg.n_heads))
                if not attend:
                    raise CapabilityError(tap.refusal)
                if layer not in attend:
                    continue
                handle = _attention(lm.root.blocks[layer]).register_forward_pre_hook(
                    tap, with_kwargs=True
                )
                stack.callback(handle.remove)
            else:
                point = SITES["attn_scores"].at(layer)
                stack.enter_context(lm.root.hooks(fwd_hooks=[(point, _on_scores(functions))]))
        yield


def _attention(block: Any) -> Any:
    """The self-attention of a block, where it has some."""
    return getattr(block, "attn", None)


class _Tap:
    """A forward pre-hook on an attention module."""

    def __init__(self, functions: Sequence[Call], name: str, n_heads: int) -> None:
        self.functions, self.n_heads = functions, n_heads
        self.refusal = (
            f"The attention of {name!r} takes no additive mask here, so no edge of it can be cut:"
            " load the model with attn_implementation='eager', or edit 'z' of the head instead."
        )

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        mask = kwargs.get("attention_mask")
        hidden = args[0] if args else kwargs.get("hidden_states")
        if mask is None or mask.ndim != 4 or hidden is None:
            raise CapabilityError(self.refusal)
        if mask.dtype == torch.bool:
            floor = max(torch.finfo(hidden.dtype).min, FLOOR)
            mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, floor)
        wide = mask.expand(hidden.shape[0], self.n_heads, -1, -1)
        return args, {**kwargs, "attention_mask": through(self.functions, wide)}


def _on_scores(functions: Sequence[Call]) -> Call:
    """On a HookedTransformer, whose scores can be written: the mask is what is added to them."""

    def add(scores: torch.Tensor, hook: Any) -> torch.Tensor:
        return scores + through(functions, torch.zeros_like(scores))

    return add


def through(functions: Sequence[Call], mask: Mask) -> Mask:
    """The mask after all functions; the mask of a position to itself is kept."""
    new = mask.clone()
    for call in functions:
        out = call(new)
        new = new if out is None else out
    itself = mask.shape[-1] - mask.shape[-2]  # keys of a KV cache come before the first query
    run = current()
    if run is not None:
        itself = min(itself, run.start)  # a cache of fixed size has unused keys at its end
    new = new.clone()
    new.diagonal(itself, -2, -1).copy_(mask.diagonal(itself, -2, -1))
    return new
