"""The frozen language model, captions as ids and targets, and the loss of soft prompts.

The sequence is [BOS][cells of the picture][prompt][caption][end of text]; the loss is the
cross-entropy of the caption and of the end. Without a BOS the first cell would be SmolLM2's
attention sink.
"""

import functools
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from compose import captions
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GgufConfig

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def language_model(work: Path, dtype: torch.dtype) -> tuple[torch.nn.Module, AutoTokenizer]:
    """The real SmolLM2-135M-Instruct, dequantised, frozen."""
    plain = GgufConfig(dequantize=True)
    lm = AutoModelForCausalLM.from_pretrained(
        work / "lm", gguf_file=GGUF, dtype=dtype, quantization_config=plain,
        attn_implementation="eager",  # of so few positions it is faster than the fused one on a CPU
    )  # fmt: skip
    return lm.eval().requires_grad_(False), AutoTokenizer.from_pretrained(
        work / "lm", gguf_file=GGUF
    )


def captioned(
    tok: AutoTokenizer, nouns: list[list[str]], photo: list[bool], short: float, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Captions in one form, drawn for the whole batch; this share of batches without the end."""
    form = rng.random()
    said = [captions(n, p, random.Random(form)) for n, p in zip(nouns, photo, strict=True)]
    ids, target = texts(tok, said)
    return shortened(ids, target) if rng.random() < short else (ids, target)


def texts(tok: AutoTokenizer, prompts: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Ids and targets Long[batch, token]; a target is -100 inside prompt and padding."""
    rows = []
    for prompt, said in prompts:
        first = tok(prompt, add_special_tokens=False).input_ids
        then = [*tok(said, add_special_tokens=False).input_ids, tok.eos_token_id]
        rows.append((first + then, [-100] * len(first) + then))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [tok.eos_token_id] * (width - len(i)) for i, _ in rows])
    target = torch.tensor([t + [-100] * (width - len(t)) for _, t in rows])
    return ids, target


def shortened(ids: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Without the full stop and the end of text, which are learned soon and cost as much."""
    ends = (target != -100).sum(1) + (target == -100).int().argmin(1)
    keep = torch.arange(ids.shape[1]) < ends[:, None] - 2
    return ids[:, : keep.sum(1).max()], target.where(keep, -100)[:, : keep.sum(1).max()]


@functools.cache
def start_of_text(lm: torch.nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the BOS, the same for every example."""
    with torch.no_grad():
        cache = lm.model(input_ids=torch.tensor([[lm.config.bos_token_id]])).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


def losses(
    lm: torch.nn.Module, soft: Tensor, ids: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss per example, and per target token: its cross-entropy and whether it comes first."""
    words = lm.get_input_embeddings()(ids[:, :-1])
    enter = torch.cat([soft.to(words.dtype), words], 1)
    bos = DynamicCache()
    for at, both in enumerate(start_of_text(lm)):
        bos.update(*(one.expand(len(ids), -1, -1, -1) for one in both), at)
    hidden = lm.model(inputs_embeds=enter, past_key_values=bos).last_hidden_state
    hidden = hidden[:, soft.shape[1] - 1 :]
    said = target != -100
    logits = lm.lm_head(hidden[said]).float()
    each = F.cross_entropy(logits, target[said], reduction="none")
    per = torch.zeros(target.shape).masked_scatter(said, each)
    return per.sum(1) / said.sum(1), each.detach(), (logits.argmax(-1) == target[said]).detach()


def too_long(soft: Tensor, quiet: float) -> Tensor:
    """Mean squared excess of the vectors' norms above `quiet`."""
    return F.relu(soft.norm(dim=-1) - quiet).square().mean()
