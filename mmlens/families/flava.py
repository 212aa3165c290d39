"""FLAVA with its multimodal encoder: a picture and a text, read together.

    load("facebook/flava-full", multimodal="match")
    from_model(flava, processor, multimodal="words")    # a FlavaForPreTraining

Amanpreet Singh et al., FLAVA: A Foundational Language And Vision Alignment Model, 2022. Without
`multimodal` the same weights are a dual encoder. Both encoders hand on what their last block holds,
before its norm, and the heads are those that the class was trained with on pairs: `itm_head`
("match") and `mmm_text_head` ("words").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmlens.model.hooked_multimodal_encoder import ANSWERS, HookedMultimodalEncoder
from mmlens.runtime.sharing import share_weights
from mmlens.towers.hooked_multimodal import Fusion, HookedMultimodal
from mmlens.towers.text.hooked_text import HookedText
from mmlens.towers.text.text_tokens import TextTokens
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.arguments import choice
from mmlens.values.errors import CapabilityError

HEADS = {"match": "itm_head", "words": "mmm_text_head"}


def multimodal_encoder(
    model: Any,
    processor: Any = None,
    tokenizer: Any = None,
    answers: str = "match",
    *,
    name: str,
    told: Mapping[str, Any] | None = None,
) -> HookedMultimodalEncoder:
    """A FLAVA of transformers as a model of pairs; the caller's stays as it is.

    Args:
        model: a FlavaForPreTraining, or, for its states, a FlavaModel.
        processor: its image processor, or the processor that has the tokenizer as well.
        tokenizer: None for that of the processor.
        answers: "match", "words" or "states".
        told: where it came from, for the provenance.

    Raises:
        CapabilityError: it is no FLAVA, or has no such head; other states than its own class.
    """
    answers, cls = choice(answers, "multimodal", ANSWERS), type(model).__name__
    flava: Any = getattr(model, "flava", model)
    if not isinstance(flava, nn.Module) or not hasattr(flava, "image_to_mm_projection"):
        raise CapabilityError(
            f"A {cls} has no encoder that reads a picture and a text together: leave multimodal="
            " out, or give a FlavaForPreTraining of transformers."
        )
    head = getattr(model, HEADS[answers], None) if answers in HEADS else None
    if head is None and answers in HEADS:
        raise CapabilityError(
            f"A {cls} has no {HEADS[answers]} to answer with: give a FlavaForPreTraining, or write"
            " multimodal='states'."
        )
    flava = share_weights(flava).eval()
    pictures = getattr(processor, "image_processor", processor)
    tokenizer = tokenizer or getattr(processor, "tokenizer", None)
    config = flava.config
    last = f"blocks.{config.image_config.num_hidden_layers - 1}.hook_resid_post"
    vision = from_hf(
        flava.image_model, pictures, class_names=(), feature_layer=last, keep_prefix=True
    )
    tokens = TextTokens(tokenizer, int(config.text_config.max_position_embeddings))
    text = HookedText(flava.text_model, states_of, tokens, int(config.text_config.vocab_size))
    parts = (flava.image_to_mm_projection, flava.text_to_mm_projection, flava.multimodal_model)
    found = HookedMultimodalEncoder(
        vision, text, HookedMultimodal(Fusion(*parts, head)), answers, name=name,
        provenance=dict(told or {}) | {"family": "flava", "answers": answers},
    )  # fmt: skip
    _refuse_unfaithful(found, flava, cls)
    return found


def states_of(text_model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    """What the last block of the text encoder holds, Float[text, pos, d]."""
    told = {"input_ids": ids, "attention_mask": None if mask is None else mask.long()}
    return text_model(**told, output_hidden_states=True, return_dict=True).hidden_states[-1]


@torch.no_grad()
def _refuse_unfaithful(found: HookedMultimodalEncoder, flava: Any, cls: str) -> None:
    """Compare the states of a grey gradient and a few ids with those of the class.

    Raises:
        CapabilityError: they differ by more than rounding.
    """
    vision, text = found.vision, found.text
    rows, cols = vision.image_size
    pixels = torch.linspace(-1, 1, rows * cols, device=vision.device, dtype=vision.dtype)
    pixels = pixels.reshape(1, 1, rows, cols).expand(1, 3, rows, cols)
    ids = torch.arange(4, device=text.device)[None] % text.n_words
    seen = torch.tensor([[True, True, True, False]], device=text.device)
    theirs = flava(input_ids=ids, pixel_values=pixels, attention_mask=seen.long(), return_dict=True)
    ours = found.multimodal(vision(pixels), text(ids, seen), seen)
    theirs = theirs.multimodal_embeddings
    near = 1e-4 if vision.dtype in (torch.float32, torch.float64) else 5e-2
    if not (ours - theirs).abs().max() <= near * (1 + theirs.abs().max()):
        raise CapabilityError(
            f"With hooks this {cls} gives other states for a pair than without: it is built in a"
            " way that mmlens does not know."
        )
