"""Continue from a KV cache: new words after a prompt that has been read.

    start = Prompt(photo, "A picture")
    logits, cache = model.forward(start, return_type="logits_and_cache")
    more = model.forward(" of", past_key_values=cache)      # = model(start + " of")[:, -1:]

The cache remembers the soft prompt that filled it, so that positions are counted from its
beginning: an edit at its patches acted when they were read and does not act again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.context_length import check_room
from mmlens.model.loss import returned
from mmlens.model.reading import going_on
from mmlens.towers.language import kv_cache
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.labels import Label, Token
from mmlens.values.prompt import SoftPrompt, next_at

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_READ = "_mmlens_read"


def length(past: Any) -> int:
    """How many positions a cache of Hugging Face's or of TransformerLens' holds."""
    if past is None:
        return 0
    if hasattr(past, "get_seq_length"):
        return int(past.get_seq_length())
    try:
        return int(past[0].past_keys.shape[1])
    except (AttributeError, TypeError, IndexError, KeyError):
        raise PromptError(
            f"A {type(past).__name__} is no cache of keys and values: give the one that"
            " return_type='logits_and_cache' returned."
        ) from None


def after(new: SoftPrompt, past: Any, crosses: bool = False) -> SoftPrompt:
    """The whole prompt: the cached positions, followed by those of `new`.

    Args:
        crosses: whether the model reads pictures by cross-attention.

    Raises:
        PromptError: the cache holds another number of prompts, its pictures are unknown, or a
            picture read by cross-attention comes after it.
    """
    held = length(past)
    if held == 0:
        return new
    old = vars(past).get(_READ)
    if old is None or old.ids.shape[1] != held:  # filled elsewhere: its prompt is unknown
        if crosses:
            raise PromptError(
                "This cache was filled elsewhere, so the pictures that were read beside its words"
                " are not known: give the one that return_type='logits_and_cache' returned."
            )
        old = _unknown(new, held)
    if new.picture_keys is not None:
        raise PromptError(
            "A picture that is read by cross-attention cannot come after what a cache holds: give"
            " the whole prompt again."
        )
    if len(old) != len(new):
        raise PromptError(
            f"The cache holds {len(old)} prompts and {len(new)} go on from it: give one for each."
        )
    return replace(
        new,
        vectors=torch.cat([old.vectors.to(new.vectors), new.vectors], 1),
        ids=torch.cat([old.ids, new.ids], 1),
        mask=torch.cat([old.mask, new.mask], 1),
        labels=tuple(a + _moved(b, a) for a, b in zip(old.labels, new.labels, strict=True)),
        prompts=(),
        picture_keys=old.picture_keys,
        deep=_deep(old, new),
    )


def _deep(old: SoftPrompt, new: SoftPrompt) -> torch.Tensor | None:
    """What the pictures of both add behind layers; zeros for one without."""
    some = old.deep if old.deep is not None else new.deep
    if some is None:
        return None
    parts = [
        some.new_zeros(*one.ids.shape, *some.shape[2:]) if one.deep is None else one.deep.to(some)
        for one in (old, new)
    ]
    return torch.cat(parts, 1)


def _moved(labels: tuple[Label, ...], before: tuple[Label, ...]) -> tuple[Label, ...]:
    """Labels with their positions counted on from those of `before`."""
    by = next_at(before)
    return tuple(replace(x, at=x.at + by) if isinstance(x, Token) else x for x in labels)


def _unknown(new: SoftPrompt, held: int) -> SoftPrompt:
    rows, width = len(new), new.vectors.shape[-1]
    return SoftPrompt(
        new.vectors.new_zeros(rows, held, width),
        new.ids.new_zeros(rows, held),
        new.mask.new_ones(rows, held),
        tuple(tuple(Token("", i) for i in range(held)) for _ in range(rows)),
    )


def _words(model: HookedVLM, input: Any, past: Any) -> Any:
    """Words that go on as ids, so that no space is put before them; anything else as it is."""
    old = vars(past).get(_READ) if length(past) else None
    if old is None or not isinstance(input, str) or len(old) != 1 or model.tokenizer is None:
        return input
    return torch.tensor([going_on(model, old, input)], dtype=torch.long)


def read_on(
    model: HookedVLM,
    input: Any,
    past: Any,
    returns: str | None,
    per_token: bool,
    mask: torch.Tensor | None,
    prepend_bos: bool | None,
    options: dict[str, Any],
) -> Any:
    """`HookedVLM.forward` with a cache that is read from, filled, or both.

    Args:
        mask: Int[batch, pos], of the new positions or of all.

    Raises:
        CapabilityError: the language model's KV cache changes its logits, or it creates none
            itself.
    """
    lm = model.lm
    if lm.is_bridge:
        if not lm.caching.exact:
            raise CapabilityError(
                f"The cache of keys and values of {model.name!r} gives other logits than reading"
                f" everything again (by {lm.caching.error:.2g} of the largest): leave it out."
            )
        how = {**kv_cache.given(lm, past), "return_type": "logits_and_cache"}
    elif past is None:
        raise CapabilityError(
            "A HookedTransformer fills the cache that it is given and makes none: write"
            " past_kv_cache=TransformerLensKeyValueCache.init_cache(cfg, device, batch_size)."
        )
    else:
        how = {"past_kv_cache": past}
    held = length(past)
    if not (model.prepend_bos if prepend_bos is None else prepend_bos):
        input = _words(model, input, past)
    with model.running(input, mask, prepend_bos, past=past) as soft:
        check_room(model, soft)
        _refuse_both_ways(model, soft, held)
        ids = soft.ids.clamp(min=0)[:, held:]
        mask = soft.mask if lm.is_bridge else soft.mask[:, held:]
        out = lm.forward(ids, mask, **{**options, **how})
    logits, filled = out if lm.is_bridge else (out, past)
    vars(filled)[_READ] = soft
    if returns == "logits_and_cache":
        return logits, filled
    return returned(logits, _since(soft, held), returns, per_token)


def _refuse_both_ways(model: HookedVLM, soft: SoftPrompt, held: int) -> None:
    """Refuse a picture behind a cache where attention looks both ways among its positions.

    Its class then gives it a causal mask.
    """
    telling = model.lm.telling
    if held and telling is not None and telling.both_ways and soft.is_picture[:, held:].any():
        raise PromptError(
            f"The attention of {model.name!r} looks both ways in a picture, but not behind what a"
            " cache holds: give the whole prompt again."
        )


def _since(soft: SoftPrompt, held: int) -> SoftPrompt:
    """The positions that the cache did not hold."""
    return soft.between(held)
