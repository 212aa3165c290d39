"""Measures the MLP units of every layer of a language model (`mmlens.towers.language.units`).

One forward pass over a few words compares, layer by layer, what the units write with the output of
the MLP, and that with what is added to the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmlens.towers.language.layer_ends import LayerEnd, layer_end
from mmlens.towers.language.units import LayerUnits, Units, normed

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

_POINTS = ("mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_attn_out", "hook_resid_pre",
           "hook_resid_mid", "hook_resid_post", "ln1.hook_out", "ln2.hook_in")  # fmt: skip


def check_units(lm: LanguageModel) -> Units:
    """One short forward pass over eight words."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(max(1, lm.n_words), (1, 8), generator=draw).to(lm.device)
    known = lm.root.hook_dict
    names = [f"blocks.{i}.{p}" for i in range(lm.cfg.n_layers) for p in _POINTS]
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda tensor, hook: kept.__setitem__(name, tensor.detach()[0].float())

    hooks = [(name, keep(name)) for name in names if name in known]
    ends = [layer_end(block) for block in lm.root.blocks]
    try:
        with lm.root.hooks(fwd_hooks=hooks):
            lm.forward(ids, torch.ones_like(ids))
    finally:
        for end in ends:
            if end is not None:
                end.handle.remove()
    return Units(lm, [_layer(lm, i, kept, ends[i]) for i in range(lm.cfg.n_layers)])


def _layer(
    lm: LanguageModel, layer: int, kept: dict[str, torch.Tensor], end: LayerEnd | None
) -> LayerUnits:
    block = lm.root.blocks[layer]
    here: dict[str, Any] = {point: kept.get(f"blocks.{layer}.{point}") for point in _POINTS}
    here["end"] = end
    post, out, mlp = here["mlp.hook_post"], here["hook_mlp_out"], getattr(block, "mlp", None)
    weight = w_out(block)
    if layer in lm.mixtures and out is not None and _added(here, out, _Close(lm.dtype)):
        mixture = lm.mixtures[layer]
        reason = f"it is a mixture of {mixture.n} experts"
        if _shared(block):
            reason += " beside a shared one, whose units have no hook point here"
        return LayerUnits(reason=reason, experts=mixture.n, of_expert=mixture.width)
    if weight is None or post is None or out is None:
        why = f" ({lm.closed[layer]})" if layer in lm.closed else ""
        return LayerUnits(reason=_missing(block, mlp) + why)
    if post.shape[-1] != weight.shape[0]:
        return LayerUnits(
            reason=f"'mlp.hook_post' has {post.shape[-1]} coordinates and W_out {len(weight)} rows"
        )
    bias = getattr(mlp, "b_out", None)
    whole = post @ weight.float() + (bias.float() if isinstance(bias, torch.Tensor) else 0.0)
    close = _Close(lm.dtype)
    norm = None
    scale = float((out * whole).sum() / whole.pow(2).sum())
    scale = 1.0 if close(whole, out) else scale
    if not close(scale * whole, out):
        norm, scale = _behind(lm, layer), 1.0
        if norm is None or not close(normed(lm, norm, whole), out):
            return LayerUnits(reason="what they write does not add up to 'mlp_out'")
    sums = not _added(here, out, close)
    if sums and norm is None:
        gate = _gate(here, out)
        if _added(here, gate * out, close):  # the MLP of a gated cross-attention layer
            sums, scale = False, scale * gate
    if sums:
        norm = _norm_of_sums(lm, block, here, out, close) if norm is None else None
        if norm is None:
            return LayerUnits(reason="what the MLP writes is not added to the stream")
    before = here["mlp.hook_pre"]
    pre = before is not None and before.shape == post.shape
    gated = getattr(mlp, "W_gate", None) is not None
    return LayerUnits(len(weight), "", pre, gated, scale, norm, sums)


def _shared(block: Any) -> bool:
    """Whether every position passes an expert of its own beside those that are chosen."""
    names = ("shared_expert", "shared_experts")  # Qwen2-MoE; DeepSeek-V3
    return any(
        isinstance(getattr(m, name, None), nn.Module) for m in block.modules() for name in names
    )


def w_out(block: Any) -> torch.Tensor | None:
    """W_out of a block, Float[unit, d_model]; None where it has none that can be read."""
    try:
        return getattr(getattr(block, "mlp", None), "W_out", None)
    except NotImplementedError:  # packed or offloaded weights
        return None


def _missing(block: Any, mlp: Any) -> str:
    if mlp is None:
        return f"it has no MLP ({type(block).__name__})"
    inside = [type(module).__name__ for module in mlp.modules()]
    if any("moe" in name.lower() or "experts" in name.lower() for name in inside):
        return "it is a mixture of experts, whose units mmlens does not take apart"
    return "its MLP has no single W_out that can be read"


class _Close:
    """Whether two values are equal up to the rounding of a dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.tolerance = 5e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-3

    def __call__(self, a: torch.Tensor, b: torch.Tensor, size: float = 0.0) -> bool:
        """Args: size: of the numbers that `a` is a difference of."""
        return bool((a - b).abs().max() <= self.tolerance * max(float(b.abs().max()), size))


def _behind(lm: LanguageModel, layer: int) -> nn.Module | None:
    """The module whose output is 'mlp_out', where that is not the MLP itself."""
    point = lm.root.hook_dict[f"blocks.{layer}.hook_mlp_out"]
    block = lm.root.blocks[layer]
    owners = [m for m in block.modules() if m._modules.get("hook_out") is point]
    return owners[0] if owners else getattr(block, "ln2_post", None)


def _added(here: dict[str, Any], out: torch.Tensor, close: _Close) -> bool:
    """Whether the stream after the block is the stream before it plus what was written."""
    after, before, mid = here["hook_resid_post"], here["hook_resid_pre"], here["hook_resid_mid"]
    if mid is None and before is not None and here["hook_attn_out"] is not None:
        mid = before + here["hook_attn_out"]
    if mid is None or after is None:
        return False
    if here["end"] is not None:
        return close(here["end"](mid + out), after)
    return close(after - mid, out, float(after.abs().max()))


def _gate(here: dict[str, Any], out: torch.Tensor) -> float:
    """The factor of the MLP's output that is closest to what the block adds."""
    after, mid = here["hook_resid_post"], here["hook_resid_mid"]
    if after is None or mid is None:
        return 1.0
    return float((out * (after - mid)).sum() / out.pow(2).sum())


def _norm_of_sums(
    lm: LanguageModel, block: Any, here: dict[str, Any], out: torch.Tensor, close: _Close
) -> nn.Module | None:
    """The norm after the sum of stream and MLP (OPT-350m), if the block has one."""
    before, summed, after = here["ln1.hook_out"], here["ln2.hook_in"], here["hook_resid_post"]
    norm = getattr(block, "ln2", None)
    if norm is None or before is None or summed is None or before.shape != summed.shape:
        return None
    adds = close(summed - before, out, float(summed.abs().max()))
    return norm if adds and close(normed(lm, norm, summed), after) else None
