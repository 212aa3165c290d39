"""Tiny random bridges of classes that the toys leave out: grouped heads, windows, norms behind."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import nn

from mmlens.families import toy
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.vision.wrap import wrap_vision

SMALL: dict[str, Any] = {**toy._SMALL, "num_key_value_heads": 2}


@cache
def twin(stem: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **options: Any) -> Any:
    """ViT - linear - `{stem}ForCausalLM`, 3 layers of 32, two keys and values for four heads."""
    import transformers

    generator = torch.Generator().manual_seed(seed)
    words = toy.tokenizer()
    names = {"Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM")}
    config, model = names.get(stem, (f"{stem}Config", f"{stem}ForCausalLM"))
    made = getattr(transformers, config)(
        vocab_size=len(words) + 2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **SMALL | options,
    )
    hf = getattr(transformers, model)(made)
    toy._fill(hf, generator, 0.15)
    vision = wrap_vision(toy._vision(generator), toy._pixels())
    projection = nn.Linear(16, 32)
    toy._fill(projection, generator, 0.3)
    hf.set_attn_implementation("eager")
    old = Version(version("transformer-lens")) < Version("4")
    if old and stem == "Cohere":
        pytest.skip("TransformerLens 3 computes Cohere otherwise, which mmlens refuses")
    lm = wrap_lm(hf.to(dtype).eval(), words)
    return HookedVLM(vision, projection, lm, name=f"tiny-{stem}")
