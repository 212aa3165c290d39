"""Serializing a model as plain parts and rebuilding it: copies, pickles, saving, training.

A wrapped language model is Hugging Face's modules inside TransformerLens' with hooks on them, and
hooks cannot be serialized. The Hugging Face model can, with the weights that the bridge computes
with, and wrapping it again gives the same bridge. So `copy.deepcopy(model)` and
`pickle.dumps(model)` work as `save` and `load` do, and all four agree.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from mmlens.runtime.casting import cast
from mmlens.runtime.sharing import share_weights
from mmlens.values.errors import CapabilityError

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel


def hugging_face(lm: LanguageModel) -> Any:
    """The Hugging Face model with the weights that `lm` computes with, whose memory it shares.

    A model with folded norms gives the weights from before the folding: they are equivalent, and
    folding them again (in their own number format) gives what the bridge has.
    """
    copied: Any = share_weights(lm.hf)
    if not lm.folded:
        for path, module in copied.named_modules():
            running = lm.parts[path]
            for name in module._parameters:
                if module._parameters[name] is not None:
                    module._parameters[name].data = running._parameters[name].data  # type: ignore[union-attr]
            for name, buffer in running._buffers.items():
                if name in module._buffers:
                    module._buffers[name] = buffer
    unquantised(copied)
    if getattr(copied, "generation_config", None) is not None:
        copied.generation_config = _token_ids(copied.generation_config)
    return copied


def unquantised(model: Any) -> Any:
    """The same model without the marks of quantisation, since its weights are plain numbers.

    transformers keeps that on models which it dequantised (GGUF), and refuses to write those.
    """
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method"):
        model.__dict__.pop(name, None)
    if getattr(model, "is_quantized", False):
        model.is_quantized = False
    return model


def _token_ids(settings: Any) -> Any:
    """Generation settings reduced to the ids of special tokens; no others are applied.

    transformers refuses to write settings that contradict each other, as many checkpoints' do.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return type(settings)(**{name: getattr(settings, name, None) for name in names})


def faithful(lm: LanguageModel, hf: Any) -> Any:
    """`hf`, if wrapping it gives the weights of `lm` again.

    Raises:
        CapabilityError: weights of the bridge were changed that the Hugging Face model does not
            have.
    """
    again = dict(rewrapped(hf, lm.tokenizer, lm.folded, lm.dtype).root.named_parameters())
    for name, ours in lm.root.named_parameters():
        if name not in again or not torch.equal(ours, again[name]):
            raise CapabilityError(
                f"The weights {name.replace('_original_component.', '')!r} were changed in the"
                f" bridge, where the {type(lm.hf).__name__} it came from does not see it: change"
                " the Hugging Face model's weights and wrap it again."
            )
    return hf


def rewrapped(
    hf: Any, tokenizer: Any, folded: bool, dtype: torch.dtype, dictionaries: Any = None
) -> LanguageModel:
    """The language model rebuilt from the output of `hugging_face`."""
    from mmlens.towers.language.language_model import wrap_lm

    lm = wrap_lm(hf, tokenizer, fold_ln=folded)
    if lm.dtype != dtype:
        cast(lm.root, dtype=dtype)
    lm.dictionaries = dict(dictionaries or {})
    return lm


def reduced_lm(lm: LanguageModel) -> Any:
    """What pickle writes of a language model."""
    if lm.hf is None:
        raise CapabilityError(
            "A language model made of a TransformerLens model cannot be pickled, because its hooks"
            " cannot be written: build it with wrap_lm(hugging_face_model)."
        )
    weights = faithful(lm, hugging_face(lm))
    return rewrapped, (weights, lm.tokenizer, lm.folded, lm.dtype, lm.dictionaries)


def deep_lm(lm: LanguageModel, memo: dict[int, Any]) -> LanguageModel:
    """A language model with copied weights."""
    if lm.hf is None:
        from mmlens.towers.language.language_model import LanguageModel

        held = copy.deepcopy(lm.dictionaries, memo)
        root = copy.deepcopy(lm.root, memo)
        return LanguageModel(root, None, lm.tokenizer, dictionaries=held)
    make, (hf, tokenizer, *rest, held) = reduced_lm(lm)
    return make(copy.deepcopy(hf, memo), tokenizer, *rest, copy.deepcopy(held, memo))
