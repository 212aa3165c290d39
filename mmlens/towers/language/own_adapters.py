"""TransformerLens' adapters for language models that it does not know.

Each is an adapter of a relative whose attention stays the class's own, with its projections as hook
points (as TransformerLens has GPT-J); `mmlens.towers.language.patterns` opens the pattern.
"""

from __future__ import annotations

from typing import Any

import torch


def idefics(base: Any) -> Any:
    """Llama's, with rotations inside of attention."""

    class Idefics(base):
        def __init__(self, cfg: Any) -> None:
            super().__init__(cfg)
            del self.component_mapping["rotary_emb"]
            _keep_attention(self)

    return Idefics


def chameleon(base: Any) -> Any:
    """Llama's, with norms of queries and keys, or behind attention and MLP (the 30B's)."""

    class Chameleon(base):
        def __init__(self, cfg: Any) -> None:
            super().__init__(cfg)
            _keep_attention(self)

        def prepare_model(self, hf_model: Any) -> None:
            super().prepare_model(hf_model)
            self.codes = hf_model.model.vocabulary_mapping.image_tokens
            if hf_model.config.swin_norm:
                _norms_behind(self)

        def apply_output_logits_transform(self, logits: torch.Tensor) -> torch.Tensor:
            """The class never says a word that is a code of a picture."""
            logits = super().apply_output_logits_transform(logits).clone()
            logits[..., self.codes] = torch.finfo(logits.dtype).min
            return logits

    return Chameleon


def inside_of_whole(base: Any) -> Any:
    """Qwen 3.5's, which refuses whole models though it hooks what is inside of one."""

    class Inner(base):
        def prepare_model(self, hf_model: Any) -> None:
            """Nothing of the class has to be prepared."""

    return Inner


def native_attention(base: Any) -> Any:
    """GLM-4's, with rotations by rows and columns inside of attention."""

    class Native(base):
        def __init__(self, cfg: Any) -> None:
            super().__init__(cfg)
            _keep_attention(self)

    return Native


def _keep_attention(adapter: Any) -> None:
    """Leave the attention of an adapter to the class."""
    from transformer_lens.model_bridge.generalized_components import AttentionBridge, LinearBridge

    inside = adapter.component_mapping["blocks"].submodules
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
    parts: dict[str, Any] = {short: LinearBridge(name=name) for short, name in names.items()}
    old = inside["attn"]
    inside["attn"] = AttentionBridge(name=old.name, config=adapter.cfg, submodules=parts)
    inside["attn"].optional = True


def _norms_behind(adapter: Any) -> None:
    """Norms of what attention and MLP write, and none of what they read."""
    from transformer_lens.model_bridge.generalized_components import BlockBridge

    old = adapter.component_mapping["blocks"]
    names = {"ln1": "ln1_post", "ln2": "ln2_post"}
    parts: dict[Any, Any] = {names.get(name, name): part for name, part in old.submodules.items()}
    adapter.component_mapping["blocks"] = BlockBridge(name=old.name, submodules=parts)


OWN = {
    "idefics": idefics,
    "chameleon": chameleon,
    "glm4v_text": native_attention,
    "glm4v_moe_text": native_attention,
    "glm_ocr_text": native_attention,
    "qwen3_5_text": inside_of_whole,
    "qwen3_5_moe_text": inside_of_whole,
}
"""By the type of model."""
