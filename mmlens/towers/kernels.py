"""The attention call inside an attention module, computed through hook points.

    pattern = softmax(q k^T * scale + mask and bias),   z = pattern v

`caught` runs a module's own forward and intercepts that call:

    transformers    the attention interface: the module's config names a function registered here
    torch           `scaled_dot_product_attention`, which timm calls
    eager code      which calls no kernel: its `softmax` and the products before and after it,
                    equal bit for bit (`nn.Softmax` calls the same function)

What the module computes before (projections, norms per head, rotations) and after stays its own
code. A bias that a module computes from its queries (SAM) is computed before they pass the point,
so edits of the queries do not change it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

OPENED = "mmlens_opened"
"""The name under which the function is registered with transformers; no user's config has it."""

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_PRODUCT = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)

Queries = Float[Tensor, "batch head query d_head"]
Keys = Float[Tensor, "batch kv_head key d_head"]
Values = Float[Tensor, "batch kv_head key d_value"]
Heads = Float[Tensor, "..."]
"""As modules pass them to torch's kernel, which also takes [batch * head, pos, d_head]."""


class Attending:
    """Attention of one module, every step of it through a hook point.

    Attributes:
        module: the attention module.
        points: HookPoints by the last part of their name: "hook_q", "hook_k", "hook_v",
            "hook_attn_scores", "hook_pattern", "hook_z", any of them.
        attended: how often the module attended.
        places: how many positions enter it, over all pictures of the batch; the number of queries
            must match (a map's axes may be [batch, row, col, dim] or [batch, dim, row, col]).
        busy: whether attention is being computed here.
    """

    by_interface = True
    """Whether modules of transformers use the attention function registered here."""

    def __init__(self, module: nn.Module, points: Mapping[str, HookPoint]) -> None:
        self.module: Any = module
        self.points = points
        self.attended, self.places, self.busy = 0, set[int](), False

    def enter(self, x: Tensor) -> None:
        """Count the positions of the module's input, which has `dim` as one of its axes."""
        self.places = {x[..., 0].numel()} | ({x[:, 0].numel()} if x.dim() == 4 else set())

    def through(self, name: str, value: Tensor, turned: bool = False) -> Tensor:
        """A tensor through its point, with the axes `pos` and `head` exchanged on the way."""
        point = self.points.get(name)
        if point is None:
            return value
        return point(value.transpose(1, 2)).transpose(1, 2) if turned else point(value)

    def by_head(self, value: Tensor) -> Tensor:
        """[batch, head, ...] of what a module keeps as [batch * head, ...] (SAM)."""
        heads = getattr(self.module, "num_heads", getattr(self.module, "num_attention_heads", 0))
        if value.dim() != 3 or not heads or len(value) % heads:
            return value
        return value.unflatten(0, (-1, heads))

    def over_positions(self, q: Tensor) -> bool:
        """Whether Float[batch, head, query, ...] has a query for each position that enters."""
        return q.dim() == 4 and q.shape[0] * q.shape[2] in self.places

    def attend(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        scale: float,
        mask: Tensor | None = None,
        softcap: float | None = None,
    ) -> Float[Tensor, "batch head query d_value"]:
        """z, every step through its hook point.

        Args:
            mask: added to the scores, or True where a query sees a key.
            softcap: bound of the scores' absolute value (Gemma 2).
        """
        if not self.over_positions(q):
            raise NotImplementedError("attention between channels, or of a part of the positions")
        self.attended += 1
        self.busy = True  # calls made here, and by hooks, are not intercepted again
        try:
            q, k, v = (
                self.through(f"hook_{name}", value, True)
                for name, value in (("q", q), ("k", k), ("v", v))
            )
            if (shared := q.shape[1] // k.shape[1]) > 1:
                k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            exact = torch.promote_types(q.dtype, torch.float32)
            scores = q.to(exact) @ k.to(exact).transpose(2, 3) * scale
            if softcap is not None:
                scores = torch.tanh(scores / softcap) * softcap
            if mask is not None and mask.dtype == torch.bool:
                scores = scores.masked_fill(~mask, torch.finfo(exact).min)
            elif mask is not None:
                scores = scores + mask
            scores = self.through("hook_attn_scores", scores)
            pattern = self.through("hook_pattern", attended(scores).to(v.dtype))
            return self.through("hook_z", pattern @ v, True)
        finally:
            self.busy = False


def attended(scores: Float[Tensor, "batch head query key"]) -> Tensor:
    """The softmax of scores; a query that is cut off from every key (-inf) attends to none."""
    alone = scores.isneginf().all(-1, keepdim=True)
    return scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)


class _Chosen:
    """A proxy of a module's config that differs only in the attention implementation."""

    _attn_implementation = OPENED

    def __init__(self, config: Any, opening: Attending) -> None:
        self.config, self.opening = config, opening

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)


_one_at_a_time = threading.RLock()
"""Without it, two threads could leave a module with the other's config."""


@contextmanager
def caught(opening: Attending) -> Iterator[None]:
    """A context in which this module's attention passes through its points; no other's does.

    Its config, which other modules share, is not changed, nor is timm's setting of eager attention
    (`fused_attn`): the module holds substitutes meanwhile.
    """
    kept: list[tuple[dict[str, Any], str, Any]] = []
    with _one_at_a_time:
        try:
            for module in opening.module.modules() if opening.by_interface else ():
                own = vars(module)
                if hasattr(own.get("config"), "_attn_implementation"):
                    _register()
                    kept.append((own, "config", own["config"]))
                    own["config"] = _Chosen(own["config"], opening)
                if own.get("fused_attn") is False:
                    kept.append((own, "fused_attn", False))
                    own["fused_attn"] = True
            with _Caught(opening):
                yield
        finally:
            for own, name, value in kept:
                own[name] = value


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(OPENED, _attended)


def _attended(
    module: Any,
    query: Queries,
    key: Keys,
    value: Values,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch query head d_value"], None]:
    """The function of transformers' attention interface."""
    if any(kwargs.get(name) is not None for name in ("position_bias", "s_aux")):
        raise NotImplementedError("attention with a bias beside its mask, or with sinks")
    if attention_mask is not None and attention_mask.dim() != 4:
        raise NotImplementedError("a mask [batch, key], as flash attention takes it")
    chosen = module.config
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if chosen.config._attn_implementation in ("eager", None):  # its mask is complete
        causal = False
    mask = _seen(attention_mask, bool(causal), query, key)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    z = chosen.opening.attend(query, key, value, scale, mask, softcap)
    return z.transpose(1, 2).contiguous(), None


class _Caught(TorchFunctionMode):
    """A context in which torch functions that compute attention pass through the points."""

    def __init__(self, opening: Attending) -> None:
        super().__init__()
        self.opening = opening
        self.softened = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, opening = kwargs or {}, self.opening
        if opening.busy:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _kernel(opening, *args, **kwargs)
        if func in _SOFTMAX + _PRODUCT:
            first, *more = (opening.by_head(x) if isinstance(x, Tensor) else x for x in args)
            if opening.over_positions(first):
                if func in _SOFTMAX:
                    out = self.softmax(func, first, *more, **kwargs)
                else:
                    out = self.product(first, *more)
                return out.flatten(0, 1) if args[0].dim() == 3 else out
        return func(*args, **kwargs)

    def softmax(self, func: Any, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        opening = self.opening
        opening.attended += 1
        self.softened = True
        scores = opening.through("hook_attn_scores", scores)
        return opening.through("hook_pattern", func(scores, *args, **kwargs))

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """q k^T before the softmax, pattern v after it."""
        opening = self.opening
        if not self.softened:
            keys = opening.through("hook_k", right.transpose(2, 3), True).transpose(2, 3)
            return torch.matmul(opening.through("hook_q", left, True), keys)
        z = torch.matmul(left, opening.through("hook_v", right, True))
        return opening.through("hook_z", z, True)


def _kernel(
    opening: Attending,
    query: Heads,
    key: Heads,
    value: Heads,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Heads:
    """`torch.nn.functional.scaled_dot_product_attention`, whose arguments these are."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    mask = _seen(attn_mask, is_causal, query, key)
    if mask is not None and mask.dim() == query.dim() == 3:
        mask = opening.by_head(mask)
    q, k, v = (opening.by_head(heads) for heads in (query, key, value))
    return opening.attend(q, k, v, factor, mask).reshape(*query.shape[:-1], -1)


def _seen(mask: Tensor | None, causal: bool, q: Tensor, k: Tensor) -> Tensor | None:
    """The mask, True where a query sees a key; a single query of a cache sees all keys."""
    if mask is None and causal and q.shape[-2] > 1:
        return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return mask
