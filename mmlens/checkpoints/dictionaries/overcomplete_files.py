"""overcomplete: the state dict of one of its SAEs, without a configuration.

    pre = x @ W.T + b            an encoder of one linear layer, with or without a batch norm, whose
                                 running statistics are folded in
    f   = relu(pre), by class    TopKSAE: the k largest. BatchTopKSAE: those at or above its running
                                 threshold. JumpSAE: those at or above exp(thresholds)
    x^  = f @ D                  D: rows of length 1 times exp(multiplier)

A state dict holds the thresholds of JumpSAE and neither k nor the running threshold, and nothing in
it tells the other classes apart: the caller says which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmlens.checkpoints.dictionaries.tensors_of import taken
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.values.errors import CheckpointError

_LINEAR = "encoder.final_block.0"
_NORM = "encoder.final_block.1"
_NEAR = 0.05
"""How far from 1 the rows of a dictionary may be after the last step of training."""
_BATCH_EPS = 1e-5


def read(
    state: Mapping[str, Tensor], where: str, k: int | None, threshold: float | None
) -> Dictionary:
    """The dictionary of an overcomplete state dict.

    Args:
        k: of a TopKSAE. threshold: of a BatchTopKSAE; 0.0 for a plain SAE.
    """
    deeper = sorted(name for name in state if name.startswith("encoder.mlp_blocks"))
    if deeper or f"{_LINEAR}.weight" not in state:
        shown = (deeper or sorted(state) or ["nothing"])[0]
        raise CheckpointError(
            f"{where!r} holds {shown}: what is read is a state dict of overcomplete whose encoder"
            f" is one linear layer, {_LINEAR}.weight."
        )
    weight, bias = taken(state, f"{_LINEAR}.weight", f"{_LINEAR}.bias", where=where)
    weight, bias = _batch_norm(state, weight, bias, where)
    jumps = state.get("thresholds")
    if (k is not None) + (threshold is not None) + (jumps is not None) != 1:
        raise CheckpointError(
            f"Nothing in {where!r} says of which class it is: write k= for a TopKSAE, threshold="
            " for a BatchTopKSAE (its running_threshold), threshold=0.0 for a plain SAE; of a"
            " JumpSAE leave both out."
        )
    limit = jumps.float().exp() if jumps is not None else None
    if threshold:
        limit = torch.full((len(weight),), float(threshold))
    if limit is not None:  # at or above, where a Dictionary asks for above
        limit = torch.nextafter(limit, torch.tensor(-torch.inf))
    return Dictionary(
        weight.T, _rows(state, where), b_enc=bias, k=k, threshold=limit,
        about={"format": "overcomplete"},
    )  # fmt: skip


def _rows(state: Mapping[str, Tensor], where: str) -> Tensor:
    """The dictionary as the package fuses it for inference: Float[unit, d]."""
    rows, multiplier = taken(state, "dictionary._weights", "dictionary.multiplier", where=where)
    length = rows.norm(dim=1, keepdim=True)
    if bool(((length - 1).abs() > _NEAR).any()):
        raise CheckpointError(
            f"The rows of the dictionary in {where!r} have lengths from {float(length.min()):.3g}"
            f" to {float(length.max()):.3g}: what is read is normalised to length 1 (normalization"
            "='l2', the default)."
        )
    return rows / (length + 1e-8) * multiplier.exp()


def _batch_norm(
    state: Mapping[str, Tensor], weight: Tensor, bias: Tensor, where: str
) -> tuple[Tensor, Tensor]:
    """The linear layer with the batch norm behind it, as it is when it is not trained."""
    if f"{_NORM}.weight" not in state:
        return weight, bias
    if f"{_NORM}.running_var" not in state:
        raise CheckpointError(
            f"The encoder in {where!r} ends in a layer norm: what is read is one linear layer, with"
            " or without a batch norm."
        )
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, shift, mean, var = taken(state, *(f"{_NORM}.{one}" for one in parts), where=where)
    scale = gain / (var + _BATCH_EPS).sqrt()
    return weight * scale[:, None], (bias - mean) * scale + shift
