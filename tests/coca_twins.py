"""Tiny random CoCa's of open_clip, with and without a pooler of queries."""

from __future__ import annotations

from typing import Any

from dual_twins import words
from encoders import shake

import mmlens as mm
from mmlens.model.hooked_vlm import HookedVLM

VISION = {
    "image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 12,
    "output_tokens": True,
}  # fmt: skip
TEXT = {
    "context_length": 24, "vocab_size": 32, "width": 16, "heads": 2, "layers": 2,
    "embed_cls": True, "output_tokens": True,
}  # fmt: skip
MIXED = {"context_length": 24, "vocab_size": 32, "width": 16, "heads": 2, "layers": 2}
POOLED = {"attentional_pool": True, "attn_pooler_heads": 2}
QUERIES = 9
"""How many queries the twin's pooler has; open_clip always makes 256."""


def coca(pool: bool | str = True, text: Any = None, **more: Any) -> tuple[Any, Any]:
    """(a CoCa, a tokenizer of transformers).

    Args:
        pool: False for none; "parallel" and "cascade" are the paper's poolers, which open_clip
            calls unfinished.
        text: what else its text encoder is.
        more: what else its image encoder is.
    """
    import open_clip
    import torch

    square = {} if pool is True else {"width": TEXT["width"], "head_width": 8}
    vision = VISION | square | ({**POOLED, "attentional_pool": pool} if pool else {}) | more
    made = open_clip.CoCa(
        TEXT["width"], multimodal_cfg=dict(MIXED), text_cfg=TEXT | (text or {}), vision_cfg=vision
    )
    for name in ("attn_pool", "attn_pool_contrastive"):
        pool: Any = getattr(made.visual, name, None)
        if pool is not None and len(pool.query) > QUERIES:
            pool.query = torch.nn.Parameter(pool.query[:QUERIES].clone())
    shake(made)
    with torch.no_grad():
        made.text.positional_embedding *= 4  # else a random captioner repeats one word
    return made, words()


def captioner(pool: bool | str = True) -> HookedVLM:
    """The captioner of a twin."""
    whole, tokenizer = coca(pool)
    model: Any = mm.from_model(whole, None, tokenizer, captions=True, name="coca")
    return model
