"""The projection of a bridge: features of patches to vectors of the soft prompt."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmlens.values.errors import CapabilityError


def keeps_positions(projection: nn.Module, out: Any, positions: int) -> None:
    """Refuse a projection that pools or resamples: a position of its output is no patch.

    Args:
        out: what it made of features [picture, positions, d_vision].
    """
    shape = tuple(getattr(out, "shape", ()))
    if len(shape) != 3 or shape[1] != positions:
        given = f"{shape[1]} positions" if len(shape) == 3 else f"values of shape {shape}"
        raise CapabilityError(
            f"This projection (a {type(projection).__name__}) makes {given} of {positions} patches,"
            " and a bridge shows the language model one position for each patch: give a projection"
            " of single patches, or an encoder wrapped with pooled=True for the mean of all."
        )
