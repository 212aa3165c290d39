"""What the model says after a prompt, under its edits and hooks.

Greedy by default, as in MMN (T = 0). On a bridge the steps share a KV cache through Hugging Face's
own `generate`; `use_past_kv_cache=False` computes everything again at each step and must say the
same. Edits at prompt positions act while the prompt is read, edits without positions at every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.errors import NumericsError

if TYPE_CHECKING:
    from mmlens.model import HookedVLM
    from mmlens.prompt import SoftPrompt


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
    use_past_kv_cache: bool = True,
    seed: int | None = None,
    return_type: str = "str",
    **options: Any,
) -> Any:
    """The words that follow each prompt (without the prompt itself).

    Args:
        max_new_tokens: at most so many.
        do_sample: draw from the distribution (with `temperature`, `top_k`, `top_p`, `seed`).
        return_type: `"str"` (one string, or a list for several prompts) or `"tokens"`
            (Int[batch, new], rows that ended early filled with the EOS token).

    Raises:
        NumericsError: the logits are NaN or infinite.
    """
    sampling: dict[str, Any] = {"do_sample": do_sample}
    if do_sample:
        sampling |= {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
    with (
        torch.no_grad(),
        torch.random.fork_rng(enabled=seed is not None),
        model._running(input) as soft,
    ):
        if seed is not None:
            torch.manual_seed(seed)
        steps = _with_hf if model.lm.is_bridge else _by_hand
        new = steps(model, soft, max_new_tokens, stop_at_eos, use_past_kv_cache, sampling | options)
    if return_type == "tokens":
        return new
    texts = [
        model.tokenizer.decode(_until_eos(model, row), skip_special_tokens=True) for row in new
    ]
    several = isinstance(input, (list, tuple)) or len(texts) > 1
    return texts if several else texts[0]


def _until_eos(model: HookedVLM, row: torch.Tensor) -> list[int]:
    ids, eos = row.tolist(), _eos(model)
    return ids[: ids.index(eos)] if eos in ids else ids


def _eos(model: HookedVLM) -> int | None:
    return None if model.tokenizer is None else model.tokenizer.eos_token_id


def _with_hf(
    model: HookedVLM,
    soft: SoftPrompt,
    steps: int,
    stop: bool,
    cached: bool,
    sampling: dict[str, Any],
) -> torch.Tensor:
    eos = _eos(model) if stop else None
    ids = soft.ids.clamp(min=0)
    out = model.root.original_model.generate(
        input_ids=ids,
        attention_mask=soft.mask.long(),
        max_new_tokens=steps,
        use_cache=cached,
        eos_token_id=eos,
        pad_token_id=_eos(model) or 0,
        output_logits=True,
        return_dict_in_generate=True,
        **sampling,
    )
    _finite(out.logits[0], model)
    return out.sequences[:, ids.shape[1] :]


def _by_hand(
    model: HookedVLM,
    soft: SoftPrompt,
    steps: int,
    stop: bool,
    cached: bool,
    sampling: dict[str, Any],
) -> torch.Tensor:
    """The plain loop, everything again at each step: HookedTransformer's own `generate` embeds
    outside of its hooks.
    """
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warp: Any = LogitsProcessorList()
    if sampling["do_sample"]:
        warp.append(TemperatureLogitsWarper(sampling["temperature"]))
        if sampling["top_k"]:
            warp.append(TopKLogitsWarper(sampling["top_k"]))
        warp.append(TopPLogitsWarper(sampling["top_p"]))
    ids, mask, eos = soft.ids.clamp(min=0), soft.mask.long(), _eos(model) if stop else None
    length, done = ids.shape[1], torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    for _ in range(steps):
        logits = _finite(model.lm.forward(ids, mask)[:, -1], model)
        if sampling["do_sample"]:
            new = torch.multinomial(warp(ids, logits).softmax(-1), 1)
        else:
            new = logits.argmax(-1, keepdim=True)
        new = torch.where(done.unsqueeze(-1), torch.full_like(new, _eos(model) or 0), new)
        ids, mask = torch.cat([ids, new], 1), torch.cat([mask, torch.ones_like(new)], 1)
        done = done | (new.squeeze(-1) == eos) if eos is not None else done
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
