"""Generate text after a prompt, under the edits and hooks of the model.

Greedy by default, as in MMN (T = 0): the argmax of the logits at every step, whatever
generation_config.json came with the checkpoint. On a bridge the steps share a KV cache through
Hugging Face's own `generate`; `use_past_kv_cache=False` recomputes all positions at each step and
must generate the same text, which is measured before the first cached generation
(`language.kv_cache`). Edits at prompt positions act while the prompt is read, edits without
positions at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.context_length import check_room
from mmlens.model.logits_processors import BehindThePrompt, LogitsProcessor, listed, processed
from mmlens.model.text_end import Stop, TextEnd, criterion, stops
from mmlens.towers.language import kv_cache
from mmlens.towers.language.tokenization import printed
from mmlens.values.arguments import SEEDS, choice, count, flag, number
from mmlens.values.errors import ArgumentError, CapabilityError, MMLensError, NumericsError, nearest

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.values.prompt import SoftPrompt

_OURS = {"max_new_tokens", "use_cache", "output_logits", "return_dict_in_generate"}


def generate(
    model: HookedVLM,
    input: Any,
    max_new_tokens: int = 30,
    *,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_at_eos: bool = True,
    stop: Stop = None,
    use_past_kv_cache: bool = True,
    seed: int | None = None,
    return_type: str = "str",
    prepend_bos: bool | None = None,
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
    **options: Any,
) -> Any:
    """The words that follow each prompt (without the prompt itself).

    Args:
        max_new_tokens: the largest number of tokens to generate, at least 1.
        do_sample: draw from the distribution (with `temperature`, `top_k`, `top_p`, `seed`).
        stop_at_eos: end at the tokenizer's end token or at one that the checkpoint names.
        stop: also end at these words or signs, as in `stop="."`; `text_end.SENTENCE` is the end of
            the first sentence or line. A sign is the last of the text, a line's end no part of it.
        return_type: `"str"` (one string, or a list for several prompts) or `"tokens"`
            (Int[batch, new], the token that ended a row included, the rest filled with the EOS
            token).
        prepend_bos: whether texts begin with the BOS token; by default `model.prepend_bos`.
        logits_processor: functions of the new tokens and of the next one's logits, one after the
            other (`mmlens.model.logits_processors`); those of `mmlens.decoding` are some.
        options: settings of transformers' GenerationConfig, on a bridge: `repetition_penalty=1.2`,
            `num_beams=3`. None is taken from the checkpoint's generation_config.json.

    Raises:
        ArgumentError: a value out of its range, or a setting that does not exist.
        CapabilityError: a setting of transformers on a HookedTransformer.
        NumericsError: the logits are NaN or infinite.
        PromptError: the prompt and so many tokens exceed the context length.
    """
    count(max_new_tokens, "max_new_tokens")
    flag(use_past_kv_cache, "use_past_kv_cache")
    choice(return_type, "return_type", ("str", "tokens"))
    ends = end_ids(model)
    whole = TextEnd(model.lm, ends if stop_at_eos else (), stops(stop))
    settings = _settings(model, do_sample, temperature, top_k, top_p, options)
    changes = listed(logits_processor)
    cached = use_past_kv_cache and model.lm.is_bridge and model.lm.caching.exact
    if use_past_kv_cache and model.lm.is_bridge and not cached:
        kv_cache.say_without(model.lm, model.name)
    with (
        torch.no_grad(),
        model.running(input, None, prepend_bos) as soft,  # one thread at a time, and its seed
        torch.random.fork_rng(enabled=seed is not None),
    ):
        if seed is not None:
            torch.manual_seed(count(seed, "seed", least=0, most=SEEDS))
        check_room(model, soft, max_new_tokens)
        steps = _with_hf if model.lm.is_bridge else _by_hand
        new = steps(model, soft, max_new_tokens, whole, cached, settings, changes)
    if return_type == "tokens":
        return new
    spell = partial(printed, model.tokenizer, skip_special_tokens=True)  # with its first space
    cut = TextEnd(model.lm, ends, whole.stop)
    texts = [spell(cut.of(row)[0]) for row in new.tolist()]
    several = isinstance(input, (list, tuple)) or len(texts) > 1
    return texts if several else texts[0]


def end_ids(model: HookedVLM) -> list[int]:
    """The tokens that end a text, the tokenizer's own first, then those the checkpoint names."""
    own = None if model.tokenizer is None else model.tokenizer.eos_token_id
    hf = getattr(model.root, "original_model", None)
    named = getattr(getattr(hf, "generation_config", None), "eos_token_id", None)
    more = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(int(i) for i in [own, *more] if i is not None))


def _settings(
    model: HookedVLM,
    do_sample: bool,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Settings of a GenerationConfig, checked."""
    from transformers import GenerationConfig

    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    asked = [name for name, value in sampling.items() if value not in (None, 1.0)]
    if not flag(do_sample, "do_sample"):
        if asked and temperature != 0:
            raise ArgumentError(
                f"{asked[0]}={sampling[asked[0]]} acts only when tokens are sampled: write"
                " do_sample=True, or leave it out for the greedy text."
            )
        settings: dict[str, Any] = {"do_sample": False}
    else:
        settings = {
            "do_sample": True,
            "temperature": number(temperature, "temperature", above=0),
            "top_k": 0 if top_k is None else count(top_k, "top_k"),
            "top_p": 1.0 if top_p is None else number(top_p, "top_p", above=0, most=1),
        }
    known = set(GenerationConfig().to_dict()) - _OURS
    for name in options:
        if name not in known:
            raise ArgumentError(f"generate has no option {name!r}: {nearest(name, sorted(known))}")
    if options and not model.lm.is_bridge:
        raise CapabilityError(
            f"{next(iter(options))!r} is a setting of transformers, and a HookedTransformer"
            " generates without it: leave it out, or wrap the Hugging Face model instead."
        )
    return settings | dict(options)


def _with_hf(
    model: HookedVLM,
    soft: SoftPrompt,
    steps: int,
    end: TextEnd,
    cached: bool,
    settings: Mapping[str, Any],
    changes: Sequence[LogitsProcessor],
) -> torch.Tensor:
    from transformers import GenerationConfig, LogitsProcessorList

    ends = end_ids(model)
    config: Any = {
        "eos_token_id": list(end.ids) or None,
        "pad_token_id": ends[0] if ends else 0,
        **settings,
        "max_new_tokens": steps,
        "use_cache": cached,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    ids, hf = soft.ids.clamp(min=0), model.root.original_model
    more: Any = {"stopping_criteria": criterion(end, ids.shape[1])} if end.stop else {}
    if changes:
        more["logits_processor"] = LogitsProcessorList([BehindThePrompt(changes, ids.shape[1])])
    with kv_cache.own_settings(hf):
        try:
            out = hf.generate(
                input_ids=ids,
                attention_mask=soft.mask.long(),
                generation_config=GenerationConfig(**config),
                **more,
            )
        except MMLensError:
            raise
        except (ValueError, TypeError, ArithmeticError) as error:
            if not set(settings) - {"do_sample", "temperature", "top_k", "top_p"}:
                raise
            reason = str(error).splitlines()[0]
            raise ArgumentError(f"transformers does not take these options: {reason}") from error
    _finite(out.logits[0], model)
    return out.sequences[:, ids.shape[1] :]


def _by_hand(
    model: HookedVLM,
    soft: SoftPrompt,
    steps: int,
    end: TextEnd,
    cached: bool,
    settings: Mapping[str, Any],
    changes: Sequence[LogitsProcessor],
) -> torch.Tensor:
    """A plain loop that recomputes all positions at each step.

    HookedTransformer's own `generate` embeds outside of its hooks.
    """
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warp: Any = LogitsProcessorList()
    if settings["do_sample"]:
        warp.append(TemperatureLogitsWarper(settings["temperature"]))
        if settings["top_k"]:
            warp.append(TopKLogitsWarper(settings["top_k"]))
        warp.append(TopPLogitsWarper(settings["top_p"]))
    ends = end_ids(model)
    filler = ends[0] if ends else 0
    ids, mask = soft.ids.clamp(min=0), soft.mask.long()
    length, done = ids.shape[1], torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    for _ in range(steps):
        logits = _finite(model.lm.forward(ids, mask)[:, -1], model)
        logits = processed(changes, ids[:, length:], logits)
        if settings["do_sample"]:
            new = torch.multinomial(warp(ids, logits).softmax(-1), 1)
        else:
            new = logits.argmax(-1, keepdim=True)
        new = torch.where(done.unsqueeze(-1), torch.full_like(new, filler), new)
        ids, mask = torch.cat([ids, new], 1), torch.cat([mask, torch.ones_like(new)], 1)
        now = [end.of(row)[1] for row in ids[:, length:].tolist()]
        done = done | torch.tensor(now, device=ids.device)
        if bool(done.all()):
            break
    return ids[:, length:]


def _finite(logits: torch.Tensor, model: HookedVLM) -> torch.Tensor:
    if not bool(torch.isfinite(logits).all()):
        raise NumericsError(
            f"{model.name!r} gives NaN or infinite logits for this prompt: look at its weights,"
            " its dtype (float16 overflows; try float32 or bfloat16) and its edits."
        )
    return logits
