"""A transformers that hands the cache to its attention under another name, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.generalized_components.joint_qkv_attention import (
    JointQKVAttentionBridge,
)
from transformers import Cache

from mmlens.towers.language import kv_cache


def rename_cache(patch: pytest.MonkeyPatch, name: str | None) -> None:
    """Let GPT-2's attention be called with the cache under `name` (None: without it)."""

    def call(self: Any, *args: Any, **options: Any) -> Any:
        caches = [value for value in options.values() if isinstance(value, Cache)]
        options = {key: value for key, value in options.items() if not isinstance(value, Cache)}
        if name is not None and caches:
            options[name] = caches[0]
        return torch.nn.Module.__call__(self, *args, **options)

    patch.setattr(JointQKVAttentionBridge, "__call__", call, raising=False)


def unbridged(patch: pytest.MonkeyPatch) -> None:
    """Let it be called with the cache under the name that nothing reads, and nothing bridges."""
    rename_cache(patch, "cache" if kv_cache.READ_AS != "cache" else "past_key_values")
    patch.setattr(kv_cache, "hand_over", lambda root: [])
