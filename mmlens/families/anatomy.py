"""Where the matrices of a toy language model lie, per class: for planting, and for nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmlens.values.labels import Neuron


@dataclass(frozen=True)
class Anatomy:
    """Writable views of the weights of one Hugging Face causal LM.

    Attributes:
        mlps: per layer the module whose input feeds the hidden units.
        reads: per layer the matrices [d_mlp, d_model] that feed the hidden units (gate and up).
        biases: per layer their biases [d_mlp], where there are any.
        writes: per layer the matrix [d_model, d_mlp].
        values, outs: per layer attention's value and output matrices [d_model, d_model].
    """

    mlps: list[nn.Module]
    reads: list[list[torch.Tensor]]
    biases: list[list[torch.Tensor]]
    writes: list[torch.Tensor]
    values: list[torch.Tensor]
    outs: list[torch.Tensor]

    @property
    def quiet(self) -> list[torch.Tensor]:
        """Everything that writes to the residual stream."""
        return [*self.writes, *self.outs]

    def read(self, neuron: Neuron, direction: torch.Tensor) -> None:
        """Make a unit respond to a direction of the residual stream."""
        for matrix in self.reads[neuron.layer]:
            matrix[neuron.unit] = direction
        for bias in self.biases[neuron.layer]:
            bias[neuron.unit] = 0.0

    def write(self, neuron: Neuron, direction: torch.Tensor) -> None:
        """Make a unit write a direction."""
        self.writes[neuron.layer][:, neuron.unit] = direction

    def copy_by_attention(self, layer: int, direction: torch.Tensor, gain: float) -> None:
        """Make a layer's attention add `gain` times what attended positions hold of a direction."""
        along = torch.outer(direction, direction) / direction.pow(2).sum()
        self.values[layer].copy_(along.view_as(self.values[layer]))
        self.outs[layer].copy_(gain * along)


def anatomy(hf: Any, kind: str) -> Anatomy:
    """The anatomy of a toy LM of this kind (see `families.toy`)."""
    base: Any = {
        "gpt2": lambda m: m.transformer.h,
        "gptj": lambda m: m.transformer.h,
        "gpt-neox": lambda m: m.gpt_neox.layers,
        "opt": lambda m: m.model.decoder.layers,
    }.get(kind, lambda m: m.model.layers)(hf)
    layers = list(base)
    if kind == "gpt2":  # Conv1D keeps its matrices transposed
        d = layers[0].attn.c_proj.weight.shape[0]
        return Anatomy(
            [x.mlp.c_fc for x in layers],
            [[x.mlp.c_fc.weight.T] for x in layers],
            [[x.mlp.c_fc.bias] for x in layers],
            [x.mlp.c_proj.weight.T for x in layers],
            [x.attn.c_attn.weight.T[2 * d :] for x in layers],
            [x.attn.c_proj.weight.T for x in layers],
        )
    if kind == "gptj":
        return _linear(
            [x.mlp.fc_in for x in layers],
            [x.mlp.fc_out for x in layers],
            [x.attn.v_proj.weight for x in layers],
            [x.attn.out_proj for x in layers],
        )
    if kind == "gpt-neox":
        heads = hf.config.num_attention_heads
        fused = [x.attention.query_key_value.weight for x in layers]
        return _linear(
            [x.mlp.dense_h_to_4h for x in layers],
            [x.mlp.dense_4h_to_h for x in layers],
            [_fused_values(weight, heads) for weight in fused],
            [x.attention.dense for x in layers],
        )
    if kind == "opt":
        return _linear(
            [x.fc1 for x in layers],
            [x.fc2 for x in layers],
            [x.self_attn.v_proj.weight for x in layers],
            [x.self_attn.out_proj for x in layers],
        )
    return Anatomy(
        [x.mlp.gate_proj for x in layers],
        [[x.mlp.gate_proj.weight, x.mlp.up_proj.weight] for x in layers],
        [[] for _ in layers],
        [x.mlp.down_proj.weight for x in layers],
        [x.self_attn.v_proj.weight for x in layers],
        [x.self_attn.o_proj.weight for x in layers],
    )


def _linear(
    mlp_in: list[Any], mlp_out: list[Any], values: list[torch.Tensor], attn_out: list[Any]
) -> Anatomy:
    """An MLP of two linear maps with biases, and what attention reads and writes."""
    return Anatomy(
        mlp_in,
        [[x.weight] for x in mlp_in],
        [[x.bias] for x in mlp_in],
        [x.weight for x in mlp_out],
        values,
        [x.weight for x in attn_out],
    )


def _fused_values(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """A view of the values [heads, d_head, d_model]: NeoX interleaves query, key and value."""
    d = weight.shape[1]
    return weight.view(heads, 3, d // heads, d)[:, 2]
