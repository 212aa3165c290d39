"""Tiny random language models, one per architecture: Hugging Face's own classes, two layers of 32.

Gains of norms are random, because a norm whose gain is 1 hides what is done to it.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
import transformers

from mmlens.model.hooked_vlm import HookedVLM
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.labels import Patch, Token
from mmlens.values.prompt import IMAGE_TOKEN, SoftPrompt

N_WORDS = 60
_IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_SMALL: dict[str, Any] = _IDS | {
    "vocab_size": N_WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_OWN_HEADS = {k: v for k, v in _SMALL.items() if k not in ("head_dim", "num_key_value_heads")}
_GPT: dict[str, Any] = {
    "vocab_size": N_WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_NEO: dict[str, Any] = {
    "vocab_size": N_WORDS, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 4,
    "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_OPT = _SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}
_NARROW = {"word_embed_proj_dim": 16}
_BEHIND = {"do_layer_norm_before": False}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
}  # fmt: skip
_GRANITE = {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0}
_DEEPSEEK: dict[str, Any] = {
    "num_key_value_heads": 4, "moe_intermediate_size": 24, "n_routed_experts": 4, "n_group": 2,
    "num_experts_per_tok": 2, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 16,
    "q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "n_shared_experts": 1,
}  # fmt: skip
_LLAMA4: dict[str, Any] = {
    "intermediate_size_mlp": 48, "num_local_experts": 4, "num_experts_per_tok": 1,
    "moe_layers": [1], "attention_chunk_size": 32,
}  # fmt: skip
_JAMBA: dict[str, Any] = {
    "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 4,
    "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1,
    "expert_layer_period": 2, "expert_layer_offset": 1,
}  # fmt: skip
_GEMMA3N: dict[str, Any] = {
    "vocab_size_per_layer_input": N_WORDS, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
    "intermediate_size": [48, 48], "num_kv_shared_layers": 0,
    "layer_types": ["full_attention"] * 2, "activation_sparsity_pattern": [0.0, 0.0],
}  # fmt: skip
_BLOOM = {"vocab_size": N_WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4, **_IDS}
_MPT: dict[str, Any] = {
    "vocab_size": N_WORDS, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, **_IDS,
}  # fmt: skip
_XGLM: dict[str, Any] = {
    "vocab_size": N_WORDS, "d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4,
    "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0, **_IDS,
}  # fmt: skip
_SSM: dict[str, Any] = {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8}

WITH_UNITS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", _GPT),
    "gptj": ("GPTJ", _GPT | {"rotary_dim": 4}),
    "gpt-neo": ("GPTNeo", _NEO),
    "gpt-neox": ("GPTNeoX", _OWN_HEADS),
    "opt": ("OPT", _OPT),
    "opt, projected": ("OPT", _OPT | _NARROW),
    "opt, norms behind": ("OPT", _OPT | _BEHIND),
    "opt-350m": ("OPT", _OPT | _NARROW | _BEHIND),
    "llama": ("Llama", _SMALL),
    "qwen2": ("Qwen2", _SMALL),
    "qwen3": ("Qwen3", _SMALL),
    "gemma": ("Gemma", _SMALL),
    "gemma2": ("Gemma2", _SMALL),
    "gemma3": ("Gemma3Text", _SMALL),
    "phi": ("Phi", _SMALL),
    "phi3": ("Phi3", _SMALL | {"partial_rotary_factor": 1.0}),
    "mistral": ("Mistral", _SMALL),
    "cohere2": ("Cohere2", _SMALL),
    "falcon": ("Falcon", _OWN_HEADS | {"ffn_hidden_size": 48, "alibi": False}),
    "falcon-h1": ("FalconH1", _SMALL | _SSM | {"mamba_d_state": 16, "embedding_multiplier": 3.0}),
    "bloom": ("Bloom", _BLOOM),
    "stablelm": ("StableLm", _SMALL),
    "olmo2": ("Olmo2", _SMALL),
    "granite": ("Granite", _SMALL | _GRANITE),
    "glm4": ("Glm4", _SMALL | {"partial_rotary_factor": 0.5}),
    "mpt": ("Mpt", _MPT),
    "xglm": ("XGLM", _XGLM),
    "exaone4": ("Exaone4", _SMALL),
}
"""Every layer has units."""
WITHOUT_UNITS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", _SMALL | _EXPERTS),
    "qwen2-moe": ("Qwen2Moe", _SMALL | _EXPERTS | {"mlp_only_layers": [0]}),
    "qwen3-moe": ("Qwen3Moe", _SMALL | _EXPERTS),
    "olmoe": ("Olmoe", _SMALL | _EXPERTS),
    "gpt-oss": ("GptOss", _SMALL | _EXPERTS | {"layer_types": ["full_attention"] * 2}),
    "deepseek-v3": ("DeepseekV3", _OWN_HEADS | _DEEPSEEK),
    "llama4": ("Llama4Text", _SMALL | _LLAMA4),
    "jamba": ("Jamba", _OWN_HEADS | _JAMBA),
    "mamba": ("Mamba", {k: v for k, v in _SMALL.items() if k[:3] not in ("num", "hea", "max")}
              | {"num_hidden_layers": 2, "state_size": 4}),
    "recurrent-gemma": ("RecurrentGemma", _SMALL | {"num_hidden_layers": 3, "lru_width": 32,
                                                    "attention_window_size": 32}),
    "rwkv": ("Rwkv", {"vocab_size": N_WORDS, "hidden_size": 32, "num_hidden_layers": 2,
                      "attention_hidden_size": 32, "context_length": 64, **_IDS}),
}  # fmt: skip
"""Some layer has none."""
UNKNOWN = {"persimmon": ("Persimmon", _SMALL), "gemma3n": ("Gemma3nText", _SMALL | _GEMMA3N)}
"""TransformerLens has no hooks for them."""
_NOT_BEFORE_4 = ("cohere2", "jamba")
ALL = WITH_UNITS | WITHOUT_UNITS | UNKNOWN


def make(kind: str, **options: Any) -> Any:
    """The Hugging Face model, made anew; the test skips where this transformers has none."""
    stem, settings = ALL[kind]
    config = getattr(transformers, f"{stem}Config", None)
    heads = ("GPT2LMHeadModel",) if stem == "GPT2" else (f"{stem.removesuffix('Text')}ForCausalLM",)
    kind_of = getattr(transformers, heads[0], None)
    if config is None or kind_of is None:
        pytest.skip(f"this transformers has no {heads[0]}")
    if kind in _NOT_BEFORE_4 and version("transformer-lens").startswith("3."):
        pytest.skip(f"TransformerLens 3 does not give Hugging Face's logits of {stem}")
    torch.manual_seed(0)
    hf = kind_of(config(**(settings | options))).eval()
    draw = torch.Generator().manual_seed(0)
    for name, parameter in hf.named_parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if parameter.ndim >= 2:
            parameter.data = noise * 0.15
        elif name.endswith("weight"):
            parameter.data = parameter.data + noise * 0.4
        else:
            parameter.data = noise * 0.1
    return hf


@cache
def pair(kind: str) -> tuple[Any, Any]:
    """The Hugging Face model and its bridge, without a vision encoder."""
    hf = make(kind)
    return hf, bare(hf, kind)


def bare(hf: Any, name: str = "tiny", tokenizer: Any = None) -> Any:
    """A bridge of the language model alone."""
    return HookedVLM(None, None, wrap_lm(hf, tokenizer), name=name)


def soft(model: Any) -> SoftPrompt:
    """Seven positions, three of them vectors that no word has."""
    ids = torch.tensor([[5, 9, 3, 11, 7, 2, 30]])
    vectors = model.lm.embed(ids).clone()
    draw = torch.Generator().manual_seed(1)
    vectors[:, 1:4] = torch.randn(1, 3, vectors.shape[-1], generator=draw)
    ids[:, 1:4] = IMAGE_TOKEN
    labels = tuple(Patch(0, i - 1) if 1 <= i < 4 else Token(f"w{i}", i) for i in range(7))
    return SoftPrompt(vectors, ids, torch.ones_like(ids, dtype=torch.bool), (labels,))
