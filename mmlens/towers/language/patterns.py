"""Writable attention patterns where TransformerLens' are read-only.

Where TransformerLens' bridge delegates attention to the module of transformers (GPT-J, OPT,
GPT-Neo, XGLM, BERT, Llama 4), it passes the pattern to `hook_pattern` afterwards, so that an edit
has no effect, and passes the pattern to `hook_attn_scores` as well. Those modules are opened in the
bridge's own copy of the model (`mmlens.towers.attention`): the masked scores and the pattern then
pass through the same two points. Each module is measured; where an opened one gives other values
than its own forward, all are left as TransformerLens has them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mmlens.towers.attention import OpenAttention, measuring

if TYPE_CHECKING:
    from torch import nn

    from mmlens.towers.language.language_model import LanguageModel

POINTS = ("hook_attn_scores", "hook_pattern")


class _Inside(OpenAttention):
    """Intercepts the softmax of eager attention, which a bridge's copy always uses.

    It returns no pattern, which TransformerLens would pass to the points a second time.
    """

    by_interface = False

    def openly(self, *args: Any, **kwargs: Any) -> Any:
        out = super().openly(*args, **kwargs)
        return (out[0], None, *out[2:]) if isinstance(out, tuple) and len(out) > 1 else out


def open_patterns(lm: LanguageModel) -> None:
    """Open the attention modules of a bridge made here, by one forward pass over five tokens."""
    import torch

    found = [_opened(block) for block in lm.root.blocks]
    opened = [one for one in found if one is not None]
    if not opened:
        return
    ids = torch.arange(5, device=lm.device).unsqueeze(0) % max(1, lm.n_words)
    # a model that does not run raises when it is called
    with suppress(Exception), lm.bare(), measuring(opened):
        lm.forward(ids, torch.ones_like(ids))


def _opened(block: nn.Module) -> OpenAttention | None:
    """The opening of a block whose attention the bridge delegates, or None."""
    from transformer_lens.model_bridge.generalized_components import AttentionBridge

    bridge: Any = getattr(block, "attn", None)
    if getattr(type(bridge), "forward", None) is not AttentionBridge.forward:
        return None
    module = bridge.original_component
    return _Inside(module, {name: getattr(bridge, name) for name in POINTS}).install()
