"""Tiny language models of transformers written as GGUF files, as llama.cpp's converter writes them.

What the converter does to weights is written down here by hand, per architecture; transformers'
loader has to undo it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from mmlens.families.toy import tokenizer

_SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
_ALL_HEADS = _SIZES | {"num_key_value_heads": 4}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "llama", _SIZES | {"rope_theta": 5e5}),
    "llama, tied": ("LlamaForCausalLM", "llama", _SIZES | {"tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", "gpt2", _GPT),
    "qwen2": ("Qwen2ForCausalLM", "qwen2", _SIZES),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", _SIZES | {"head_dim": 128}),
    "gemma2": ("Gemma2ForCausalLM", "gemma2", _SIZES | {"head_dim": 8, "sliding_window": 16}),
    "phi3": ("Phi3ForCausalLM", "phi3", _SIZES),
    "starcoder2": ("Starcoder2ForCausalLM", "starcoder2", _SIZES),
    "stablelm": ("StableLmForCausalLM", "stablelm", _ALL_HEADS),
    "bloom": ("BloomForCausalLM", "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "nemotron": ("NemotronForCausalLM", "nemotron", _SIZES | {"head_dim": 8}),
}
"""Name -> (class of transformers, architecture of llama.cpp, sizes)."""


def tiny(name: str) -> Any:
    """A random model whose norms and biases are random, too."""
    words = len(tokenizer())
    made, _, sizes = MODELS[name]
    cls: Any = getattr(transformers, made)
    torch.manual_seed(0)
    hf = cls(cls.config_class(**sizes, vocab_size=words)).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 4)
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return hf


def write(path: Path, hf: Any, architecture: str, kind: str = "F32", **more: Any) -> Path:
    """The GGUF file of a model, with the toy tokenizer in it.

    Args:
        kind: how matrices are stored; vectors are F32.
        more: tensors to add, as arrays; keys with a dot as texts or numbers.
    """
    import gguf

    out = gguf.GGUFWriter(path, architecture)
    _sizes(out, hf.config)
    _words(out)
    for name, value in more.items():
        if not isinstance(value, np.ndarray):
            (out.add_uint32 if isinstance(value, int) else out.add_string)(name, value)
    tensors = {name: v.float().numpy() for name, v in stored(hf, architecture).items()}
    tensors |= {name: value for name, value in more.items() if isinstance(value, np.ndarray)}
    for name, value in tensors.items():
        wanted = gguf.GGMLQuantizationType[kind if value.ndim > 1 else "F32"]
        packed = gguf.quantize(np.ascontiguousarray(value), wanted)
        out.add_tensor(name, packed, raw_dtype=wanted)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def stored(hf: Any, architecture: str) -> dict[str, torch.Tensor]:
    """The tensors of a model under llama.cpp's names, changed as its converter changes them."""
    import gguf

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    layers = hf.config.num_hidden_layers
    known = architecture in {name for _, name, _ in MODELS.values()}
    names: Any = gguf.get_tensor_name_map(arch if known else gguf.MODEL_ARCH.LLAMA, layers)
    tied = hf.config.tie_word_embeddings
    out = {}
    for path, value in hf.state_dict().items():
        if tied and path == "lm_head.weight":
            continue
        name = names.get_name(path, try_suffixes=(".weight", ".bias"))
        name = name or names.get_name(path.removeprefix("transformer."), (".weight", ".bias"))
        assert name is not None, path
        out[name] = _converted(value.detach(), name, architecture, hf.config)
    return out


def _converted(value: torch.Tensor, name: str, architecture: str, config: Any) -> torch.Tensor:
    """One tensor as llama.cpp's converter writes it."""
    if architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
        heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
        halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        return halves.swapaxes(1, 2).reshape(value.shape)
    if architecture == "gpt2" and "blk." in name and value.ndim == 2:  # Conv1D
        return value.T
    if architecture in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
        return value + 1
    if architecture == "bloom" and "attn_qkv" in name:
        apart = value.reshape(config.n_head, 3, -1, *value.shape[1:])
        return apart.swapaxes(0, 1).reshape(value.shape)
    return value


def _sizes(out: Any, config: Any) -> None:
    heads, width = config.num_attention_heads, config.hidden_size
    out.add_context_length(getattr(config, "max_position_embeddings", 64))
    out.add_embedding_length(width)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * width)
    out.add_head_count(heads)
    out.add_vocab_size(config.vocab_size)
    shared = getattr(config, "num_key_value_heads", None)
    if shared:
        out.add_head_count_kv(shared)
    head = getattr(config, "head_dim", None) or width // heads
    rope = getattr(config, "rope_parameters", None)
    if rope:
        turned = int(head * rope.get("partial_rotary_factor", 1))
        out.add_rope_dimension_count(turned)
        out.add_rope_freq_base(rope["rope_theta"])
    out.add_key_length(head)
    out.add_value_length(head)
    for name in (
        "rms_norm_eps",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "norm_epsilon",
        "norm_eps",
    ):
        if getattr(config, name, None):
            add = out.add_layer_norm_rms_eps if name == "rms_norm_eps" else out.add_layer_norm_eps
            add(getattr(config, name))
    if getattr(config, "sliding_window", None):
        out.add_sliding_window(config.sliding_window)


def _words(out: Any) -> None:
    words = tokenizer()
    told = json.loads(words.backend_tokenizer.to_str())["model"]
    listed = sorted(words.get_vocab(), key=lambda word: words.get_vocab()[word])
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(listed)
    out.add_token_types([3 if word == "<eos>" else 1 for word in listed])
    out.add_token_merges([" ".join(pair) for pair in told["merges"]])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_pad_token_id(0)
