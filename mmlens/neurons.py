"""Addresses of parts of a network: one hidden unit of an MLP, one attention head.

A `Neuron` is a label *and* an address: `scores.sel(Neuron(3, 17))` reads it, `Edit("neurons", 0.0,
Neuron(3, 17))` silences it. Layers and units count from 0, as in TransformerLens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmlens.errors import AddressError


@dataclass(frozen=True, order=True)
class Neuron:
    """Hidden unit `unit` of the MLP in layer `layer`, printed `L14.2019`."""

    layer: int
    unit: int

    def __str__(self) -> str:
        return f"L{self.layer}.{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Neuron:
        """`"L14.2019"` (or the paper's `"L14.u2019"`) as a Neuron."""
        match = re.fullmatch(r"L(\d+)\.u?(\d+)", text.strip())
        if match is None:
            raise AddressError(f"{text!r} is not a neuron: write it as L14.2019 (layer.unit).")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, order=True)
class Head:
    """Attention head `head` of layer `layer`, printed `L3H5`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"
