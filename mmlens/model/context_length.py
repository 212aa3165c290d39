"""The context length of a language model, and the refusal of prompts that exceed it.

Learned position embeddings are limited in number, and a lookup beyond them fails. Rotary ones are
not limited, but beyond the trained length the logits are meaningless, and no error says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.errors import PromptError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.values.prompt import SoftPrompt


def room(model: HookedVLM) -> int | None:
    """The context length of the language model in positions, or None where it has no limit."""
    if not model.lm.is_bridge:
        return int(model.cfg.n_ctx)
    config = model.root.original_model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    if not isinstance(most, int) or getattr(config, "alibi", False):
        return None
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor") or 1.0
    if kind in ("dynamic", "linear", "yarn"):
        return max(most, int((rope.get("original_max_position_embeddings") or most) * factor))
    return most


def check_room(model: HookedVLM, soft: SoftPrompt, max_new_tokens: int = 0) -> None:
    """Refuse a prompt that exceeds the context length; padding does not count.

    Args:
        max_new_tokens: tokens to be generated; the last of them is predicted but not read.

    Raises:
        PromptError: the prompt, or the prompt with the new tokens, is too long.
    """
    most, length = room(model), int(soft.mask.sum(-1).max())
    if most is None or length + max(0, max_new_tokens - 1) <= most:
        return
    if length > most:
        raise PromptError(
            f"This prompt has {length} positions and {model.name!r} has {most}: shorten it, or give"
            " fewer pictures."
        )
    raise PromptError(
        f"A prompt of {length} positions and {max_new_tokens} new tokens do not fit into the {most}"
        f" positions of {model.name!r}: write max_new_tokens={most - length + 1} or less."
    )
