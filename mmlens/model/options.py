"""Keyword options: an unknown one is refused with the nearest known name, never ignored.

Hugging Face's models accept any keyword and ignore unknown ones, so a typo would silently have no
effect. For options of TransformerLens that have no meaning here, the error says what to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import choice, shown
from mmlens.values.errors import AddressError, ArgumentError, nearest
from mmlens.values.labels import LM

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

RETURNS = ("logits", "loss", "both", "logits_and_cache", None)
FORWARD = [
    "return_type",
    "loss_per_token",
    "attention_mask",
    "prepend_bos",
    "stop_at_layer",
    "past_key_values",
    "past_kv_cache",
    "cache",
    "use_cache",
    "logits_to_keep",
    "position_ids",
]
CACHE = [
    "names_filter",
    "device",
    "incl_bwd",
    "remove_batch_dim",
    "return_cache_object",
    "pos_slice",
    "reset_hooks_end",
    "clear_contexts",
]
HOOKS = ["fwd_hooks", "bwd_hooks", "reset_hooks_end", "clear_contexts"]
INSTEAD = {
    "start_at_layer": "TransformerLens runs all blocks for it; mm.patch begins where its patch is",
    "padding_side": "prompts are padded on the left, so that each row ends with its last word",
    "tokens": "give the ids, model.to_tokens(prompt), as the input",
    "shortformer_pos_embed": "no model with a picture has it",
    "labels": "the loss is that of the prompt's own words; for others compute it from the logits",
    "pixel_values": "give a Prompt with its picture",
    "input_values": "give a Prompt with its picture",
    "inputs_embeds": "give the vectors as the input, or a Prompt",
    "output_attentions": "run_with_cache keeps 'blocks.{L}.attn.hook_pattern'",
    "output_hidden_states": "run_with_cache keeps 'blocks.{L}.hook_resid_post'",
}


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that are not known.

    Raises:
        ArgumentError: the first of them, with the nearest known one or what to write instead.
    """
    known = list(known)
    for name in given:
        if name not in known:
            told = INSTEAD.get(name) or nearest(name, known)
            raise ArgumentError(f"{what} has no option {name!r}: {told}")


def return_type(value: Any) -> str | None:
    """A valid `return_type`."""
    return choice(value, "return_type", RETURNS)


def stop_layer(model: HookedModel, layer: Any) -> int | None:
    """The layer before which to stop, counted from the first; None for none.

    Raises:
        AddressError: no such layer.
    """
    if layer is None:
        return None
    n = model.towers[LM].n_layers
    if isinstance(layer, bool) or not isinstance(layer, int) or not -n <= layer <= n:
        raise AddressError(
            f"stop_at_layer={shown(layer)}: {model.name!r} has the layers 0 to {n - 1}; {n} stops"
            " after the last of them, and negative numbers count from the end."
        )
    return layer + n if layer < 0 else layer


def past(options: dict[str, Any], past_key_values: Any) -> Any:
    """The cache to go on from, under any of its names (transformers 5.24 calls it `cache`)."""
    named = (past_key_values, options.pop("past_kv_cache", None), options.pop("cache", None))
    given = [value for value in named if value is not None]
    if len(given) > 1:
        raise ArgumentError(
            "past_key_values, past_kv_cache and cache are one thing: give one of them."
        )
    return given[0] if given else None
