"""Which models can be the language model of a bridge; others are refused when wrapped.

A bridge needs a causal language model of transformers with its unembedding, whose weights are
ordinary tensors in memory. Everything that looks like one and is not (compiled, quantised,
offloaded, headless, an encoder, a whole vision-language model) would fail later with an unrelated
error, or give wrong numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from mmlens.runtime.autograd import differentiable
from mmlens.towers.language.dequantised import is_quantised
from mmlens.towers.language.inside import is_eyeless, whole
from mmlens.values.arguments import shown
from mmlens.values.errors import ArgumentError, CapabilityError

_PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
_WRITE = "give a causal language model of transformers, a folder or a hub id"


def check_lm(model: Any) -> None:
    """Refuse what cannot be the language model of a bridge.

    Raises:
        ArgumentError: it is no model at all.
        CapabilityError: it is a model of another kind, or its weights are not plain tensors here.
    """
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"{shown(model)} is no language model: {_WRITE}.")
    _check_form(model, name)
    check_weights(model, name)
    if hasattr(model, "run_with_cache") and any(map(is_quantised, model.modules())):
        raise CapabilityError(
            f"The weights of this {name} are quantised, and neurons and heads are rows of plain"
            " weights: give the model of transformers that it came from, which is dequantised here."
        )
    adapted: Any = model
    if hasattr(adapted, "peft_config") and hasattr(adapted, "get_base_model"):
        model = adapted.get_base_model()
    name = type(model).__name__
    hf = getattr(model, "original_model", None) if hasattr(model, "run_with_cache") else model
    if hf is None:
        return  # a HookedTransformer
    config = getattr(hf, "config", None)
    if hf is model and (config is None or not hasattr(hf, "get_output_embeddings")):
        raise CapabilityError(f"A {name} is no language model of transformers: {_WRITE}.")
    if config is not None:
        _check_kind(hf, config, type(hf).__name__, headed=hf is model)


@contextmanager
def refusing(model: Any) -> Iterator[None]:
    """Inside, TransformerLens builds a bridge.

    Raises:
        CapabilityError: it does not know this architecture; the error gives its reason.
    """
    try:
        yield
    except (ValueError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        if "Unsupported architecture" in str(error):
            raise CapabilityError(
                f"TransformerLens has no hooks for {type(model).__name__}: give a causal language"
                " model of one of the architectures that it knows, such as GPT2LMHeadModel or"
                " LlamaForCausalLM."
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CapabilityError(
            f"TransformerLens cannot wrap a {type(model).__name__} ({reason}): take a language"
            " model that transformer_lens.supported_models lists."
        ) from error


def _check_form(model: nn.Module, name: str) -> None:
    """Refuse wrappers that hide the model."""
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        raise CapabilityError(
            f"A {name} is compiled, and compiled code runs past hooks: give the model as it was"
            " before torch.compile (model._orig_mod)."
        )
    if name in _PARALLEL:
        raise CapabilityError(
            f"A {name} splits what runs over devices or processes, which hooks do not follow: give"
            " the model inside of it (model.module)."
        )


def check_weights(model: nn.Module, name: str) -> None:
    """Refuse weights that are not in memory, cannot be read, or can have no gradients."""
    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    parameters = list(model.parameters())
    if any(getattr(hook, "offload", False) for hook in hooks) or any(
        parameter.device.type == "meta" for parameter in parameters
    ):
        raise CapabilityError(
            f"The weights of this {name} are not all in memory (offloaded by accelerate to the CPU"
            " or a disk, or still on the meta device): load it whole, without device_map."
        )
    if not any(map(is_quantised, model.modules())):
        differentiable(model)


def _check_kind(hf: Any, config: Any, name: str, headed: bool) -> None:
    """Refuse models that do not predict the next token from left to right."""
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    kind = getattr(config, "model_type", "")
    if getattr(config, "is_encoder_decoder", False):
        raise CapabilityError(
            f"A {name} has an encoder for words and a decoder; a bridge puts pictures among the"
            f" words of one decoder: {_WRITE}."
        )
    if whole(config) and not is_eyeless(hf):
        raise CapabilityError(
            f"A {name} is a whole vision-language model, not the language model of one: write"
            " mm.from_model(model, processor), or give its language model alone."
        )
    known = {one for names in causal.values() for one in _several(names)}
    if headed and hf.get_output_embeddings() is None:
        with_head = next(iter(_several(causal.get(kind, ()))), None)
        hint = f"load it as a {with_head}" if with_head else _WRITE
        raise CapabilityError(f"A {name} has no head that gives logits (lm_head): {hint}.")
    says = {base.__name__ for base in type(hf).__mro__} & known
    looks_ahead = "Bert" in name or kind in ("electra", "camembert", "xlnet", "xlm")
    both = looks_ahead and not getattr(config, "is_decoder", False)
    masked = any("ForMaskedLM" in base.__name__ for base in type(hf).__mro__)
    if masked or (says and both):
        raise CapabilityError(
            f"A {name} reads in both directions and predicts masked tokens, not the next: {_WRITE}."
        )


def _several(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
