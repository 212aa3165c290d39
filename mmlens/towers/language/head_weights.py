"""What each attention head of a layer writes by: W_O, Float[head, d_head, d_model].

TransformerLens cuts the output weights into heads of one size; in a model whose layers have heads
of several sizes (Gemma 4: longer ones where attention is global) it refuses the other ones.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmlens.values.errors import CapabilityError


def head_weights(block: Any, what: str) -> Tensor:
    """W_O of a layer's heads: Float[head, d_head, d_model].

    Args:
        block: the layer, of a TransformerBridge or HookedTransformer.
        what: the layer in words, for the sentence of a refusal.

    Raises:
        CapabilityError: it has no heads that can be told apart.
    """
    try:
        weight = getattr(getattr(block, "attn", None), "W_O", None)
    except ValueError as error:
        raise CapabilityError(
            f"The heads of {what} are of another size than those of other layers, and"
            " TransformerLens cuts weights into heads of one size: ask layers that have it."
        ) from error
    if weight is None:
        raise CapabilityError(
            f"{what[0].upper()}{what[1:]} has no attention heads whose output is read."
        )
    return weight
