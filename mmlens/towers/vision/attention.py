"""Attention that can be looked into: queries, keys, values, pattern and z as hook points.

Fused kernels never show their pattern, `nn.MultiheadAttention` never calls its sub-modules, and the
weights it returns are off the gradient path. So an attention module keeps its own forward until one
of its five points has a hook; then the same parameters are used in the open:

    pattern = softmax(q k^T * scale + bias),   z = pattern v,   out = z W_O

Axes, as in TransformerLens: q, k, v and z are [batch, pos, head, d_head]; the pattern is
[batch, head, query, key]. All of them are read *and* written; q and k are taken after any
per-head norm, before the scale.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

ATTENTION_POINTS = ("hook_q", "hook_k", "hook_v", "hook_pattern", "hook_z")

TOLERANCE = 1e-5
"""Largest difference of opened from closed attention, relative to the largest output."""

Heads = Float[Tensor, "batch pos head d_head"]


def warm(point: HookPoint) -> bool:
    """Whether anything is attached to a hook point, by TransformerLens or by plain torch."""
    return bool(
        point._forward_hooks
        or point._backward_hooks
        or point._forward_pre_hooks
        or point._backward_pre_hooks
    )


class OpenAttention:
    """Takes the place of one attention module's `forward`; delegates to it while no hook is set."""

    def __init__(self, module: nn.Module, points: dict[str, HookPoint]) -> None:
        self.module: Any = module
        self.points = points
        self.plain = module.forward
        self.checking, self.agrees = False, True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.checking:
            self.agrees = self.agrees and self.check(*args, **kwargs)
            return self.plain(*args, **kwargs)
        if any(warm(point) for point in self.points.values()):
            return self.openly(*args, **kwargs)
        return self.plain(*args, **kwargs)

    def openly(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def check(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the open way gives what the module gives, in float32, to rounding.

        A bias or a rotation that the open way doesn't know shows here, however weakly the rest of
        the encoder listens to this module.
        """
        if next(self.module.parameters()).dtype in (torch.float16, torch.bfloat16):
            twin = copy.deepcopy(self)
            twin.module.float()
            args, kwargs = _floats(args), _floats(kwargs)
        else:
            twin = self
        closed = twin.plain(*args, **kwargs)
        try:
            opened = twin.openly(*args, **kwargs)
        except Exception:  # whatever it stumbles over, it stays closed
            return False
        if isinstance(closed, tuple) != isinstance(opened, tuple):
            return False
        ours, theirs = (o[0] if isinstance(o, tuple) else o for o in (opened, closed))
        if ours.shape != theirs.shape:
            return False
        return bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max())

    def attend(
        self, q: Heads, k: Heads, v: Heads, scale: float, bias: Tensor | None = None
    ) -> tuple[Heads, Float[Tensor, "batch head query key"]]:
        """z and the pattern, every step through its hook point."""
        point = self.points
        q, k, v = point["hook_q"](q), point["hook_k"](k), point["hook_v"](v)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
        if bias is not None:
            if bias.dtype == torch.bool:
                scores = scores.masked_fill(~bias, float("-inf"))
            else:
                scores = scores + bias
        pattern = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        pattern = point["hook_pattern"](pattern)
        z = torch.einsum("bhqk,bkhd->bqhd", pattern, v)
        return point["hook_z"](z), pattern


class HFAttention(OpenAttention):
    """transformers: `q_proj`, `k_proj`, `v_proj` and `o_proj` or `out_proj`; returns a tuple."""

    def openly(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if any(isinstance(value, (Tensor, tuple)) for value in kwargs.values()):
            raise NotImplementedError(f"{sorted(kwargs)}")  # a rotation or a bias: not known here
        m = self.module
        shape = (*hidden_states.shape[:-1], -1, m.head_dim)
        q, k, v = (p(hidden_states).view(shape) for p in (m.q_proj, m.k_proj, m.v_proj))
        scale = m.scaling if hasattr(m, "scaling") else m.scale
        z, pattern = self.attend(q, k, v, scale, attention_mask)
        out = m.o_proj if hasattr(m, "o_proj") else m.out_proj
        return out(z.flatten(2)), pattern


class TimmAttention(OpenAttention):
    """timm's ViT and BEiT attention: one `qkv` matrix, an optional relative position bias."""

    def openly(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        shared_rel_pos_bias: Tensor | None = None,
    ) -> Tensor:
        m = self.module
        bias = attn_mask if attn_mask is not None else shared_rel_pos_bias
        if getattr(m, "relative_position_bias_table", None) is not None:
            own = m._get_rel_pos_bias()
            bias = own if bias is None else own + bias
        qkv = m.qkv(x)
        if getattr(m, "q_bias", None) is not None:
            qkv = qkv + torch.cat((m.q_bias, m.k_bias, m.v_bias))
        q, k, v = qkv.unflatten(-1, (3, m.num_heads, -1)).unbind(2)
        if hasattr(m, "q_norm"):
            q, k = m.q_norm(q).to(v.dtype), m.k_norm(k).to(v.dtype)
        z, _ = self.attend(q, k, v, m.scale, bias)
        out = z.flatten(2)
        out = m.norm(out) if hasattr(m, "norm") else out
        if getattr(m, "gate", None) is not None:
            out = out * m.gate(x).sigmoid()
        return m.proj_drop(m.proj(out))


class TorchAttention(OpenAttention):
    """`nn.MultiheadAttention` used as self-attention (open_clip); returns (out, None)."""

    def openly(
        self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        m = self.module
        x = query if m.batch_first else query.transpose(0, 1)
        qkv = nn.functional.linear(x, m.in_proj_weight, m.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, m.num_heads, -1)).unbind(2)
        z, _ = self.attend(q, k, v, m.head_dim**-0.5, kwargs.get("attn_mask"))
        out = m.out_proj(z.flatten(2))
        return out if m.batch_first else out.transpose(0, 1), None


def _floats(values: Any) -> Any:
    """The same arguments with every floating tensor in float32."""
    if isinstance(values, Tensor):
        return values.float() if values.is_floating_point() else values
    if isinstance(values, tuple):
        return tuple(_floats(value) for value in values)
    if isinstance(values, dict):
        return {name: _floats(value) for name, value in values.items()}
    return values


def reader_for(module: nn.Module) -> type[OpenAttention] | None:
    """The class that can open this attention module, or None: then it keeps its secrets."""
    if isinstance(module, nn.MultiheadAttention):
        return TorchAttention if module.in_proj_weight is not None else None
    names = {name for name, _ in module.named_children()}
    if {"q_proj", "k_proj", "v_proj"} <= names and names & {"o_proj", "out_proj"}:
        return HFAttention if hasattr(module, "head_dim") else None
    if {"qkv", "proj"} <= names and type(module).__module__ in (
        "timm.layers.attention",
        "timm.models.beit",
        "timm.models.vision_transformer",
    ):
        return TimmAttention if type(module).__name__ == "Attention" else None
    return None
