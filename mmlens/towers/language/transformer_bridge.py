"""A TransformerBridge around a copy of a Hugging Face model that shares its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmlens.runtime.sharing import share_weights
from mmlens.towers.language import ends
from mmlens.towers.language.attention_mask import keep_finite
from mmlens.towers.language.inside import architecture, is_eyeless
from mmlens.towers.language.kinds import refusing
from mmlens.towers.language.unit_checks import w_out


def bridge(hf: Any, fold_ln: bool) -> tuple[Any, dict[str, nn.Module]]:
    """A TransformerBridge of a copy that shares the weights, and the modules of that copy."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    twin: Any = share_weights(hf)
    parts = dict(twin.named_modules())
    ends.complete(twin)
    twin.set_attn_implementation("eager")
    name, config = type(hf).__name__, twin.config
    if is_eyeless(hf):
        name, config = architecture(hf), config.get_text_config()
    with refusing(hf):
        root = build_bridge_from_module(twin, name, hf_config=config)
    if fold_ln:
        _own_weights(twin)
        root.enable_compatibility_mode(
            center_writing_weights=False, center_unembed=False, fold_value_biases=False
        )
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    twin.register_forward_pre_hook(_plain_experts_before)
    keep_finite(root.blocks)
    _count_units(root)
    return root.eval(), parts


def plain_experts(model: Any) -> None:
    """Let mixtures of experts run in float64, which torch's grouped product does not take."""
    kind = getattr(model.config.get_text_config(), "_experts_implementation", "eager")
    if model.dtype == torch.float64 and kind not in (None, "eager"):
        model.set_experts_implementation("eager")


def _plain_experts_before(model: Any, args: Any) -> None:
    plain_experts(model)  # in every pass, since a model may be cast later


def _count_units(root: Any) -> None:
    """Set the MLP's width from its weights, where the configuration guesses 4 d_model."""
    found = [w_out(block) for block in root.blocks]
    widths = {int(weight.shape[0]) for weight in found if weight is not None}
    if len(widths) == 1:
        root.cfg.d_mlp = widths.pop()


def _own_weights(module: nn.Module) -> None:
    """Give the copy its own weights, because folding overwrites them."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
