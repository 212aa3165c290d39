"""The language half of a whole vision-language model: the same class with its eyes taken out.

    eyeless(llava)         LlavaForConditionalGeneration without vision tower and projector

Its forward pass over ids and vectors is transformers' own, with what the class adds to its language
model (masks that look both ways among image tokens, rotary positions of rows and columns).
TransformerLens hooks it by the adapter of the language model inside, under that one's path.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from torch import nn

from mmlens.towers.language import own_adapters
from mmlens.values.errors import CapabilityError

_LIKE = {
    "qwen2_vl_text": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "glm4v_text": "Glm4ForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
    "glm_ocr_text": "Glm4ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM",
    "mllama_text_model": "LlamaForCausalLM",
    "emu3_text_model": "LlamaForCausalLM",
    "idefics": "LlamaForCausalLM",
    "chameleon": "LlamaForCausalLM",
}
"""Language models without a causal class of their own, or with one of another name."""
_EYES = ("vision_model", "perceiver_resampler", "vqmodel")
"""The eyes of a class that has them beside the layers of its language model."""


def whole(config: Any) -> bool:
    """Whether this is the configuration of a whole vision-language model."""
    words = hasattr(config, "text_config") or hasattr(config, "perceiver_config")
    both = hasattr(config, "vision_config") and words
    return both or hasattr(config, "vq_config")  # which reads codes of pictures


def eyeless(model: Any) -> Any:
    """A copy of the top of a model's tree, which shares all modules but has no vision.

    Raises:
        CapabilityError: its language model stands elsewhere than in `model.model`.
    """
    inside = getattr(model, "model", None)
    path = language_path(model)
    if path is None or not isinstance(inside, nn.Module):
        raise CapabilityError(
            f"The language model of a {type(model).__name__} is not where mmlens looks for it, in"
            " model.model: hand in the language model and the encoder, from_parts(vision=, lm=)."
        )
    out, inner = copy.copy(model), copy.copy(inside)
    keep = (
        [n for n in inside._modules if n not in _EYES] if path == "model" else [path.split(".")[1]]
    )
    inner._modules = {n: part if n in keep else None for n, part in inside._modules.items()}
    out._modules = {**model._modules, "model": inner}
    if hasattr(getattr(inside, "vision_model", None), "num_patches"):
        # Mllama's class repeats its mask for every patch of a tile; here it has one for each key
        del inner._modules["vision_model"]
        inner.__dict__["vision_model"] = SimpleNamespace(num_patches=1)
    return out


def language_path(model: Any) -> str | None:
    """The path of the language model in a whole model, such as "model.language_model"."""
    words, inside = model.get_input_embeddings(), getattr(model, "model", None)
    if not isinstance(inside, nn.Module):
        return None
    if any(part is words for part in inside.children()):
        return "model"
    for name, part in inside.named_children():
        if any(module is words for module in part.modules()) and part is not words:
            return f"model.{name}"
    return None


def is_eyeless(model: Any) -> bool:
    """Whether a whole model has lost its eyes: nothing but its language model is inside."""
    inside = getattr(model, "model", None)
    if not whole(getattr(model, "config", None)) or not isinstance(inside, nn.Module):
        return False
    left = [name for name, part in inside.named_children() if part is not None]
    return not set(left) & set(_EYES) if language_path(model) == "model" else len(left) == 1


def architecture(model: Any) -> str:
    """The name under which TransformerLens knows an eyeless model; its adapter is registered.

    Raises:
        CapabilityError: TransformerLens has no adapter for the language model inside.
    """
    from transformer_lens.factories.architecture_adapter_factory import (
        ArchitectureAdapterFactory as Factory,
    )
    from transformers.models.auto import modeling_auto

    kind = model.config.get_text_config().model_type
    causal = _LIKE.get(kind) or modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    every: Any = getattr(Factory, "_adapters", {})  # TransformerLens 4
    base = every.get(causal)
    if base is None:
        raise CapabilityError(
            f"TransformerLens has no hooks for the language model of a {type(model).__name__}"
            f" ({kind}): take a checkpoint with one that it knows, such as Llama or Qwen2."
        )
    path = language_path(model)
    name, adapter = f"mmlens:{causal} at {path}", _at(base, str(path))
    if kind in own_adapters.OWN:
        name, adapter = f"mmlens:{kind}", own_adapters.OWN[kind](adapter)
    if name not in every:
        Factory.register_adapter(name, adapter)
    return name


def _at(base: Any, path: str) -> Any:
    """An adapter for the same language model under another path."""

    class Inside(base):
        def __init__(self, cfg: Any) -> None:
            super().__init__(cfg)
            for part in self.component_mapping.values():
                if part.name and part.name.startswith("model."):
                    part.name = f"{path}.{part.name.removeprefix('model.')}"
            inside = self.component_mapping["blocks"].submodules
            if "attn" in inside:
                inside["attn"].optional = True  # a layer that reads pictures has none

    Inside.__name__ = f"{base.__name__}Inside"
    return Inside
