"""The halves of a dual encoder: open_clip's models; CLIP, SigLIP, FLAVA of transformers.

Each half is run by its library's own code (pooling, projection), on a copy that holds this half
alone, so that moving or casting it costs no memory for the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmlens.towers.joint_head import JointHead
from mmlens.towers.text.hooked_text import HookedText
from mmlens.towers.text.text_tokens import TextTokens
from mmlens.towers.vision.calls import hf_inputs
from mmlens.towers.vision.class_head import without_child
from mmlens.towers.vision.wrap import from_hf, from_open_clip
from mmlens.values.errors import CapabilityError


@dataclass(frozen=True)
class Halves:
    """What a dual encoder is made of.

    Attributes:
        image: pictures to embeddings.
        text: texts to embeddings.
        scale, bias: the logit of a pair is scale * cosine + bias.
        sigmoid: whether each pair has a probability of its own (SigLIP), instead of a softmax over
            texts.
        rest: the tensors of scale and bias, by their names in the model.
        beside: the names of the model's other tensors that are in neither half.
    """

    image: JointHead
    text: HookedText
    scale: float
    bias: float
    sigmoid: bool
    rest: dict[str, Tensor]
    beside: tuple[str, ...]


def halves_of(model: Any, preprocess: Any = None, tokenizer: Any = None) -> Halves:
    """The halves of an open_clip or Hugging Face dual encoder.

    Args:
        model: it, or what `open_clip.create_model_and_transforms` returns.
        preprocess: its transform or image processor, or a processor that has the tokenizer as well.
        tokenizer: None for that of the processor; open_clip's own where the vocabulary is its size.

    Raises:
        CapabilityError: it is no dual encoder of these libraries.
    """
    if isinstance(model, tuple) and model and isinstance(model[0], nn.Module):
        model, preprocess = model[0], preprocess or model[-1]
    model = getattr(model, "flava", model)  # FlavaForPreTraining holds it beside its heads
    if callable(getattr(model, "encode_image", None)) and hasattr(model, "visual"):
        return _of_open_clip(model, preprocess, tokenizer)
    if hasattr(model, "image_to_mm_projection"):
        return _of_flava(model, preprocess, tokenizer)
    if callable(getattr(model, "get_image_features", None)) and hasattr(model, "text_model"):
        return _of_transformers(model, preprocess, tokenizer)
    raise CapabilityError(
        f"A {type(model).__name__} is no dual encoder: give a model of open_clip, or one of"
        " transformers that has get_image_features and get_text_features, such as a CLIPModel."
    )


def is_dual(model: Any) -> bool:
    """Whether an object looks like a dual encoder that `halves_of` takes."""
    first = model[0] if isinstance(model, tuple) and model else model
    first = getattr(first, "flava", first)
    named = ("encode_image", "encode_text"), ("get_image_features", "get_text_features")
    return any(all(callable(getattr(first, one, None)) for one in both) for both in named)


def _of_open_clip(model: Any, preprocess: Any, tokenizer: Any) -> Halves:
    visual = model.visual
    vision = from_open_clip(visual, preprocess, whole=visual, class_names=())
    half = getattr(model, "text", None)
    half = half if isinstance(half, nn.Module) else without_child(model, "visual")
    length, n_words = int(model.text.context_length if half is getattr(model, "text", None)
                          else model.context_length), _n_words(half)  # fmt: skip
    if tokenizer is None and n_words == 49408:
        import open_clip

        tokenizer = open_clip.SimpleTokenizer(context_length=length)
    tokens = TextTokens(tokenizer, length, fixed=True)
    text = HookedText(half, text_of_open_clip, tokens, n_words)
    return _joined(model, JointHead(vision, image_of_open_clip), text)


def _of_transformers(model: Any, processor: Any, tokenizer: Any) -> Halves:
    pictures = getattr(processor, "image_processor", processor)
    tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
    whole = without_child(model, "text_model")
    vision = from_hf(model.vision_model, pictures, whole=whole, class_names=())
    config = model.config.text_config
    length = int(config.max_position_embeddings) - _before_first(model.text_model)
    length = min(length, int(getattr(tokenizer, "model_max_length", length)))
    fixed = str(model.config.model_type).startswith("siglip")
    tokens = TextTokens(tokenizer, length, fixed)
    half = without_child(model, "vision_model")
    text = HookedText(half, text_of_transformers, tokens, int(config.vocab_size))
    return _joined(model, JointHead(vision, image_of_transformers), text)


def _of_flava(model: Any, processor: Any, tokenizer: Any) -> Halves:
    """FLAVA without its multimodal encoder, which no similarity passes through.

    The embedding of each half is the projection of its CLS token (Singh et al. 2022, section 3.1).
    """
    from transformers.models.flava import modeling_flava as flava

    pictures = getattr(processor, "image_processor", processor)
    tokenizer = tokenizer or getattr(processor, "tokenizer", None)
    alone = without_child(model, "multimodal_model")
    whole, half = (without_child(alone, name) for name in ("text_model", "image_model"))
    vision = from_hf(model.image_model, pictures, whole=whole, class_names=())
    config = model.config.text_config
    tokens = TextTokens(tokenizer, int(config.max_position_embeddings))
    text = HookedText(half, text_of_flava, tokens, int(config.vocab_size))
    bounds = (float(flava.LOGIT_SCALE_CLAMP_MIN), float(flava.LOGIT_SCALE_CLAMP_MAX))
    return _joined(model, JointHead(vision, image_of_flava), text, bounds)


def _joined(
    model: Any, image: JointHead, text: HookedText, bounds: tuple[float | None, ...] = (None, None)
) -> Halves:
    """Both halves of a model, whose class keeps the logarithm of the scale within `bounds`."""
    if image.d_embed != text.d_embed:
        raise CapabilityError(
            f"The halves of this {type(model).__name__} give embeddings of {image.d_embed} and"
            f" {text.d_embed} dimensions, so pictures and texts can't be compared."
        )
    bias = getattr(model, "logit_bias", None)
    logarithm = model.logit_scale.detach()
    scale = float((logarithm if bounds[0] is None else logarithm.clamp(*bounds)).exp().mean())
    add = 0.0 if bias is None else float(bias.detach().mean())
    state = model.state_dict()
    rest = {key: value for key, value in state.items() if key in ("logit_scale", "logit_bias")}
    own = ("visual.", "vision_model.", "visual_projection.", "text.")
    beside = tuple(key for key in state if not key.startswith(own) and key not in rest)
    return Halves(image, text, scale, add, bias is not None, rest, beside)


def _n_words(half: Any) -> int:
    """The size of the vocabulary of open_clip's text encoder."""
    table = getattr(half, "token_embedding", None)
    return int(table.num_embeddings if table is not None else half.vocab_size)


def _before_first(text_model: nn.Module) -> int:
    """Rows of the table of positions that no token has: RoBERTa counts from after its padding."""
    tables = (m for m in text_model.modules() if hasattr(m, "position_embeddings"))
    padding = getattr(next(tables, None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def image_of_open_clip(visual: Any, pixels: Tensor) -> Tensor:
    """Float[picture, d_embed]; CoCa's encoder returns its tokens as well."""
    return _first(visual(pixels))


def text_of_open_clip(half: Any, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Float[text, d_embed]; open_clip's text encoders derive the mask from the ids."""
    return _first(half.encode_text(ids) if hasattr(half, "encode_text") else half(ids))


def image_of_transformers(model: Any, pixels: Tensor) -> Tensor:
    """Float[picture, d_embed]"""
    return _pooled(model.get_image_features(**hf_inputs(model.vision_model, pixels)))


def text_of_transformers(model: Any, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Float[text, d_embed]"""
    mask = None if mask is None else mask.long()
    return _pooled(model.get_text_features(input_ids=ids, attention_mask=mask))


def image_of_flava(model: Any, pixels: Tensor) -> Tensor:
    """Float[picture, d_embed], of the CLS token"""
    return _pooled(model.get_image_features(pixel_values=pixels))[:, 0]


def text_of_flava(model: Any, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Float[text, d_embed], of the CLS token"""
    return text_of_transformers(model, ids, mask)[:, 0]


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _pooled(output: Any) -> Tensor:
    """transformers 4 returns the embedding, 5 an output whose pooler_output it is."""
    return output if isinstance(output, Tensor) else output.pooler_output
