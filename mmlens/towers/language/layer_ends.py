"""What a layer does to the stream behind the sum with its MLP: in Gemma 4, and nowhere else.

    x    =  resid_mid + mlp_out
    out  =  (x + norm(W_proj (act(W_gate x) * p))) * s

p is the layer's own vector for the token at a position (in the small models), s a number. So an
MLP's output is added to the stream, and what comes behind is like a part of the next layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

End = Callable[[Tensor], Tensor]


class LayerEnd:
    """The end of one layer, with the vectors that it was last given.

    Args:
        layer: of the class.
    """

    def __init__(self, layer: Any) -> None:
        self.layer, self.own = layer, None
        self.handle = layer.register_forward_pre_hook(self._given, with_kwargs=True)

    def _given(self, layer: nn.Module, args: Any, options: dict[str, Any]) -> None:
        self.own = args[1] if len(args) > 1 else options.get("per_layer_input")

    def __call__(self, stream: Tensor) -> Tensor:
        """The output of the layer, Float[pos, d_model], from the sum of stream and MLP."""
        layer, out = self.layer, stream[None].to(self.layer.layer_scalar.dtype)
        if layer.hidden_size_per_layer_input:
            gated = layer.act_fn(layer.per_layer_input_gate(out)) * self.own
            out = out + layer.post_per_layer_input_norm(layer.per_layer_projection(gated))
        return (out * layer.layer_scalar)[0].float()


def layer_end(block: Any) -> LayerEnd | None:
    """The end of a block of a bridge; None where the sum itself leaves it."""
    layer = getattr(block, "original_component", None)
    return LayerEnd(layer) if hasattr(layer, "layer_scalar") else None
