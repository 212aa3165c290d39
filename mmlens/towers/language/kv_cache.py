"""The KV cache is measured before it is used.

TransformerLens reimplements attention and takes the cache by name from the arguments that the
Hugging Face block passes to its attention. Names change (transformers 5.24 calls `cache` what was
`past_key_values`), and an attention that does not find the cache leaves it empty: every later step
then attends to itself alone, without an error. So the cached steps of a short greedy generation are
compared with the same steps computed in full; where they differ, the cache is found by its type,
passed under the name that TransformerLens reads, and measured again.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from mmlens.towers.language.measured import NOT_FINITE, Measured, compared, tokens

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

READ_AS = "past_key_values"
"""The argument from which TransformerLens' attention takes the cache."""
STEPS = 3


@dataclass(frozen=True)
class Caching(Measured):
    """Cached steps against full ones; `renamed`: whether the cache is passed under a new name."""

    renamed: bool = False


def measure(lm: LanguageModel) -> Caching:
    """The cache of this model as it is, or under the name that is read if that repairs it."""
    plain = _measure(lm, renamed=False)
    if plain.exact:
        return plain
    handles = hand_over(lm.root)
    bridged = _measure(lm, renamed=True)
    if not bridged.exact:
        for handle in handles:
            handle.remove()
        return plain
    return bridged


def hand_over(root: Any) -> list[Any]:
    """Pass every block's attention its cache under the name it reads; returns hook handles."""
    attentions = (getattr(block, "attn", None) for block in root.blocks)
    return [
        attention.register_forward_pre_hook(_named, with_kwargs=True)
        for attention in attentions
        if attention is not None
    ]


def given(lm: LanguageModel, cache: Any) -> dict[str, Any]:
    """Options that pass a cache to a forward pass, under the name of this transformers version."""
    takes = inspect.signature(lm.root.original_model.forward).parameters
    return {"use_cache": True, "cache" if "cache" in takes else READ_AS: cache}


def first_number(blocks: Any, otherwise: int) -> int:
    """The number in a cache of the first of these blocks that attends among positions.

    Layers that read pictures are not counted by a class that has them in a list of their own.
    """
    attentions = (
        getattr(getattr(block, "attn", None), "original_component", None) for block in blocks
    )
    numbers = (getattr(one, "layer_idx", None) for one in attentions)
    return next((int(number) for number in numbers if number is not None), otherwise)


def shortened(cache: Any, length: int, n: int, skipped: int) -> Any:
    """Keys and values of the first `length` positions, for `n` rows.

    Args:
        skipped: below this number in the cache a layer is skipped, and needs one row.
    """
    from transformers import DynamicCache

    short = DynamicCache()
    for number, layer in enumerate(cache.layers):
        if layer.keys is None:
            continue  # a layer that reads pictures, whose keys are not cached
        many = 1 if number < skipped else n
        keys, values = (
            x[:, :, :length].expand(many, -1, -1, -1) for x in (layer.keys, layer.values)
        )
        short.update(keys, values, number)
    return short


def _named(module: Any, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import Cache

    found = options.get(READ_AS)
    if found is None:
        found = next((value for value in options.values() if isinstance(value, Cache)), None)
    # with cross-attention there are two caches, of which self-attention has the first
    found = getattr(found, "self_attention_cache", found)
    return args, options if found is None else {**options, READ_AS: found}


def _measure(lm: LanguageModel, renamed: bool) -> Caching:
    """Compare greedy steps with and without the cache."""

    def routes() -> tuple[torch.Tensor, torch.Tensor]:
        ids = tokens(lm, 8)
        full, cached = _steps(lm, ids, False), _steps(lm, ids, True)
        same = 1 + next((i for i in range(STEPS) if full[i][0] != cached[i][0]), STEPS - 1)
        # after the first step that generates another token (a tie, or an error) the texts differ
        return tuple(torch.stack([logits for _, logits in s[:same]]) for s in (cached, full))  # type: ignore[return-value]

    found = compared(lm, routes)
    return Caching(found.error, found.tolerance, found.reason, renamed)


def _steps(lm: LanguageModel, ids: torch.Tensor, cached: bool) -> list[tuple[int, torch.Tensor]]:
    """Token and logits Float[d_vocab] of each step of a greedy generation."""
    from transformers import GenerationConfig

    plain = GenerationConfig(
        max_new_tokens=STEPS,
        do_sample=False,
        use_cache=cached,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    hf = lm.root.original_model
    with own_settings(hf), torch.no_grad():
        out: Any = hf.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=plain,
            **lm.beside(ids),
        )
    new = out.sequences[0, ids.shape[1] :].tolist()
    return [(token, step[0].float()) for token, step in zip(new, out.logits, strict=True)]


@contextmanager
def own_settings(hf: Any) -> Iterator[None]:
    """Within this context the model has no generation settings of its own.

    transformers takes settings that a call omits from the checkpoint's generation_config.json: a
    repetition penalty, suppressed tokens, beams. Here greedy is always the argmax.
    """
    from transformers import GenerationConfig

    kept = hf.generation_config
    hf.generation_config = GenerationConfig()
    try:
        yield
    finally:
        hf.generation_config = kept


def say_without(lm: LanguageModel, name: str) -> None:
    """Warn, once per language model, that generation does not use the cache."""
    if lm.__dict__.setdefault("_said_uncached", False) or lm.caching.reason == NOT_FINITE:
        return  # non-finite logits are refused where they are read
    lm.__dict__["_said_uncached"] = True
    builds = " and ".join(f"{p} {version(p)}" for p in ("transformers", "transformer-lens"))
    warnings.warn(
        f"The cache of keys and values of {name!r} gives other logits than reading the whole text"
        f" again (by {lm.caching.error:.2g} of the largest), so mmlens generates without it, which"
        f" is slower but correct: {builds} do not fit together here; run `mmlens doctor`.",
        stacklevel=2,
    )
