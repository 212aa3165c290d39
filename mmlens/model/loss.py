"""The loss of a forward pass: cross entropy of the next word, and of words alone.

Patches and padding are no targets (LiMBeR, section 2.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.values.arguments import instance
from mmlens.values.errors import ArgumentError

if TYPE_CHECKING:
    from mmlens.values.prompt import SoftPrompt


def returned(
    logits: torch.Tensor, soft: SoftPrompt, return_type: str | None, per_token: bool
) -> Any:
    """What `forward` gives back: logits, their loss, both, or nothing."""
    if return_type is None or return_type == "logits":
        return logits if return_type else None
    return loss(logits, soft, return_type, per_token)


def loss(logits: torch.Tensor, soft: SoftPrompt, return_type: str, per_token: bool) -> Any:
    """Cross entropy of the next token, over positions that a word follows.

    Returns:
        `"loss"`: a number (or Float[batch, pos - 1] with 0 where there is no target);
        `"both"`: (logits, loss).

    Raises:
        ArgumentError: these are no logits of the prompt.
    """
    instance(logits, "logits", torch.Tensor, "what model(prompt) returns")
    batch, pos = soft.ids.shape
    words = int(soft.ids.max()) + 1
    if tuple(logits.shape[:-1]) != (batch, pos) or logits.shape[-1] < words:
        raise ArgumentError(
            f"logits of shape {tuple(logits.shape)} are none of this prompt, whose logits are"
            f" [{batch}, {pos}, d_vocab]: give what model(prompt) returns."
        )
    target = soft.ids[:, 1:].to(logits.device)
    counted = (
        (target >= 0) & soft.mask[:, 1:].to(logits.device) & soft.mask[:, :-1].to(logits.device)
    ).float()
    wide = torch.promote_types(logits.dtype, torch.float32)  # half precision is too coarse
    log_probs = logits[:, :-1].to(wide).log_softmax(-1)
    each = -log_probs.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1) * counted
    value = each if per_token else each.sum() / counted.sum().clamp(min=1)
    return (logits, value) if return_type == "both" else value
