"""Adapters (LoRA and the like), merged into the weights of the copy that is wrapped; and `plain`.

An adapted layer computes with more than its `.weight`: everything that reads weights (`W_out`,
`decode`, direct logit attribution) would then describe another model than the one that runs. So the
effective weight is computed from the layer's outputs, W = f(1) - f(0), for any kind of adapter; the
caller's model is not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmlens.runtime.sharing import share_weights
from mmlens.towers.language.dequantised import all_rows, dequantised
from mmlens.values.errors import CapabilityError


def plain(model: Any) -> Any:
    """A model of plain weights: the model itself, or a copy without adapters and quantised layers.

    The copy shares the memory of what is neither.

    Raises:
        CapabilityError: an adapter or a quantised layer that cannot be expressed as weights.
    """
    model = dequantised(_inner(model))
    if not any(_saved(layer) or _wrapped(layer) for layer in model.modules()):
        return model
    copy: Any = share_weights(model)
    _merge(copy)
    if getattr(copy, "_hf_peft_config_loaded", False):
        copy._hf_peft_config_loaded = False  # else only the adapter would be saved
    return copy


def _saved(layer: nn.Module) -> bool:
    """Whether a layer holds a fully trained copy of itself."""
    return hasattr(layer, "modules_to_save") and hasattr(layer, "active_adapter")


def _wrapped(layer: nn.Module) -> bool:
    """Whether a layer has an adapter around its base layer."""
    return isinstance(getattr(layer, "base_layer", None), nn.Module)


def _inner(model: Any) -> Any:
    """The adapted model inside of a model of `peft`."""
    if not hasattr(model, "get_base_model") or not hasattr(model, "peft_config"):
        return model
    if any(getattr(one, "is_prompt_learning", False) for one in model.peft_config.values()):
        raise CapabilityError(
            f"{type(model).__name__} adds vectors of its own to every prompt, which hooks would not"
            " see: put them into the soft prompt, and give the base model."
        )
    return model.get_base_model()


def _merge(model: nn.Module) -> None:
    """Put a plain layer in place of every adapted one."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if _saved(layer):
                setattr(parent, name, _active(layer))
            elif _wrapped(layer):
                setattr(parent, name, _plain(layer, name))


def _active(layer: Any) -> nn.Module:
    """The fully trained copy of a layer."""
    active = layer.active_adapter
    name = active if isinstance(active, str) else next(iter(active), None)
    saved = layer.modules_to_save  # nn.ModuleDict has no get
    return saved[name] if name in saved else layer.original_module  # noqa: SIM401


def _plain(layer: Any, name: str) -> nn.Module:
    """A plain layer that computes the same as an adapted one."""
    from transformers.pytorch_utils import Conv1D

    base = layer.base_layer
    while _wrapped(base):
        base = base.base_layer
    weight = base.weight
    with torch.no_grad():
        if isinstance(base, nn.Embedding):
            every = torch.arange(base.num_embeddings, device=weight.device)
            plain = nn.Embedding.from_pretrained(
                all_rows(layer, every).to(weight.dtype), freeze=True
            )
        elif isinstance(base, nn.Linear | Conv1D):
            conv = isinstance(base, Conv1D)
            size = weight.shape[0] if conv else base.in_features
            eye = torch.eye(size, device=weight.device, dtype=weight.dtype)
            zero = layer(eye[:1] * 0)[0]
            rows = all_rows(layer, eye) - zero  # Float[in, out]
            biased = conv or base.bias is not None
            wide = rows.shape[1]
            plain = Conv1D(wide, size) if conv else nn.Linear(size, wide, bias=biased)
            plain.weight = nn.Parameter(rows if conv else rows.T.contiguous())
            if biased:
                plain.bias = nn.Parameter(zero)
            _check(layer, plain, eye, name)
        else:
            raise CapabilityError(
                f"{name!r} is adapted in a way that cannot be read as weights"
                f" ({type(base).__name__}): merge the adapter first, as in"
                " model.merge_and_unload()."
            )
    return plain.requires_grad_(False).eval()


def _check(layer: nn.Module, plain: nn.Module, eye: torch.Tensor, name: str) -> None:
    """Refuse an adapter that is no linear map, which weights cannot express."""
    noise = torch.randn(4, len(eye), generator=torch.Generator().manual_seed(0)).to(eye)
    wanted, got = layer(noise).float(), plain(noise).float()
    tolerance = 1e-4 if eye.dtype in (torch.float32, torch.float64) else 5e-2
    if float((wanted - got).abs().max()) > tolerance * max(1.0, float(wanted.abs().max())):
        raise CapabilityError(
            f"{name!r} is adapted by something that is no linear map, so no weights stand for it:"
            " take the adapter off, or give a model that it was merged into."
        )
