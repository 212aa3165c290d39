"""Quantised weights, read as the plain numbers that they stand for.

Neurons and heads are rows of plain weights, so mmlens computes with a copy in which every quantised
layer is a plain one: what torchao's tensors dequantise to, and of other layers (bitsandbytes' four
bits, GPTQ, AWQ, HQQ) the linear map that they are, W = f(1) - f(0). That is the quantised model
itself as long as only weights are rounded, which is measured layer by layer; where activations are
rounded, too (LLM.int8, dynamic int8), no weights stand for the layer, and it is refused. The copy
takes the memory of a plain model, which a warning tells.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from mmlens.towers.language.copies import unquantised
from mmlens.values.errors import CapabilityError, reason

QUANTISERS = ("bitsandbytes", "torchao", "torch.ao", "optimum", "gptqmodel", "awq", "hqq")
_PACKED = ("qweight", "weight", "weight_packed")
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Between the layer and its plain copy, as a share of the output's root mean square."""
_ROWS = 1024
"""The largest number of inputs in one call of a layer."""
_HALF = 4e-3
"""In half precision, whose rounding is a quarter of it; int8 activations are off by twice it."""
_DEQUANTISE = "load it without quantization_config, or in another form, such as torchao's int8"


def is_quantised(layer: nn.Module) -> bool:
    """Whether a layer's own weight is no plain tensor of floats."""
    own = [one for one in layer._parameters.values() if one is not None]
    return (
        any(type(one) is not nn.Parameter or not one.is_floating_point() for one in own)
        or type(layer).__module__.startswith(QUANTISERS)
        or any(name in _PACKED and one is not None and not one.is_floating_point()
               for name, one in layer._buffers.items())
    )  # fmt: skip


def dequantised(model: Any) -> Any:
    """The model itself, or a copy in which quantised layers are plain; the rest shares its memory.

    Raises:
        CapabilityError: a layer whose activations are rounded, or that is no linear map.
    """
    layers = {name: layer for name, layer in model.named_modules() if is_quantised(layer)}
    if not layers:
        return model
    memo: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    with torch.no_grad():
        plain: dict[int, Any] = {
            id(layer): _plain(layer, name, model) for name, layer in layers.items()
        }
    for layer in layers.values():
        for part in layer.modules():  # what is in it is not copied
            memo[id(part)] = part
    memo |= {id(one): one for one in (getattr(model, "hf_quantizer", None),) if one is not None}
    found = copy.deepcopy(model, memo | plain)
    found = unquantised(found) if hasattr(found, "config") else found
    size = sum(one.weight.nbytes for one in plain.values())
    warnings.warn(
        f"{len(plain)} layers of this {type(model).__name__} are quantised: mmlens computes with"
        f" the numbers that their weights stand for, which take {size / 2**30:.2f} GiB.",
        stacklevel=2,
    )
    return found


def _plain(layer: Any, name: str, model: Any) -> nn.Module:
    """A plain layer that computes the same as a quantised one."""
    weight = getattr(layer, "weight", None)
    kind = f"{name!r} ({type(layer).__name__}) is quantised and"
    readable = type(weight).__module__.startswith("torchao")
    if getattr(weight, "act_quant_kwargs", None) is not None or "8bit" in type(layer).__name__:
        raise CapabilityError(_rounded(kind))
    if readable and isinstance(layer, nn.Embedding):
        rows: Any = weight
        found: Any = nn.Embedding.from_pretrained(rows.dequantize(), padding_idx=layer.padding_idx)
        return found.eval()
    if not hasattr(layer, "in_features"):
        raise CapabilityError(
            f"{kind} cannot be read as weights, being no map of vectors: {_DEQUANTISE}."
        )
    dtype = _dtype(layer, model)
    place = next((one.device for one in (*layer.parameters(), *layer.buffers())), None)
    try:
        zero = layer(torch.zeros(1, layer.in_features, dtype=dtype, device=place))[0]
        biased = getattr(layer, "bias", None) is not None
        found = nn.Linear(layer.in_features, len(zero), bias=biased, device="meta")
        if readable:
            values = weight.dequantize()  # type: ignore[union-attr]
        else:
            eye = torch.eye(layer.in_features, dtype=dtype, device=place)
            values = (all_rows(layer, eye) - zero).T.contiguous()
        found.weight = nn.Parameter(values.to(dtype), requires_grad=False)
        if biased:
            found.bias = nn.Parameter(zero.clone(), requires_grad=False)
        noise = torch.randn(16, layer.in_features, generator=torch.Generator().manual_seed(0))
        noise = noise.to(place, dtype)
        wanted, got = layer(noise).double(), found(noise).double()
    except (RuntimeError, ImportError, AttributeError, TypeError) as error:  # no kernel here
        raise CapabilityError(
            f"{kind} does not run on {place} ({reason(error)}), so its weights cannot be read:"
            f" {_DEQUANTISE}."
        ) from error
    off = float((wanted - got).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt().clamp(min=1e-30))
    if not off <= _ROUNDING.get(dtype, _HALF):
        raise CapabilityError(_rounded(kind, off))
    return found.eval()


def all_rows(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """A layer's outputs for these inputs, a part of them at a time."""
    return torch.cat([layer(part) for part in inputs.split(_ROWS)])


def _rounded(kind: str, off: float | None = None) -> str:
    told = "" if off is None else f" (off by {off:.1g} of its output)"
    return (
        f"{kind} rounds more than its weights{told}, so no plain weights stand for it:"
        f" {_DEQUANTISE} weight-only."
    )


def _dtype(layer: Any, model: Any) -> torch.dtype:
    """The number format in which a layer computes."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    for one in (getattr(layer, "compute_dtype", None), getattr(weight, "dtype", None),
                getattr(bias, "dtype", None), getattr(model, "dtype", None)):  # fmt: skip
        if isinstance(one, torch.dtype) and one.is_floating_point:
            return one
    return torch.float32
