"""Whole vision-language models of transformers, as they are: the shared half of their families.

    load("llava-hf/llava-1.5-7b-hf")            a hub id, or a folder of save_pretrained
    from_model(model, processor)                one in memory

A family (`llava.py`, `gemma3.py`, ...) says what its class makes of a picture: an encoder, a
projection, and where each position of the picture lies. All else is here. Words are read by the
checkpoint's own processor and chat template, pixels are made by its image processor, and the
language model is the class itself without its eyes. Before a model is handed out, its logits for a
picture are compared with those of the class's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from packaging.version import Version
from PIL import Image
from torch import nn

from mmlens.families.refused import refused
from mmlens.model.chat_reader import ChatReader
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.image_reader import ImageReader
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.casting import cast
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language import adapters, measured
from mmlens.towers.language.inside import eyeless
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.language.transformer_bridge import plain_experts
from mmlens.towers.vision.encoder import HookedVision
from mmlens.values.errors import CapabilityError, nearest, reason
from mmlens.values.prompt import Prompt


@dataclass(frozen=True)
class Eyes:
    """What a family makes of one model.

    Attributes:
        vision: its encoder.
        projection: features [crop, patch, d_vision] to vectors [crop, pos, d_model].
        reader: what a picture becomes.
        processor: the checkpoint's, with the token counts of the model's own config.
        picture: what stands for a picture in a text that the processor is given.
        prompts: the kind of reader of its prompts.
        words: its language model, where that is a module of its own; None for the class itself
            without its eyes.
    """

    vision: HookedVision
    projection: nn.Module
    reader: ImageReader
    processor: Any
    picture: str
    prompts: type[ChatReader] = ChatReader
    words: nn.Module | None = None


@dataclass(frozen=True)
class Family:
    """A class of model that is taken.

    Attributes:
        model_type: what its config.json says.
        cls: the class in transformers.
        example: a public checkpoint.
        eyes: from a model and its processor to `Eyes`.
    """

    model_type: str
    cls: str
    example: str
    eyes: Callable[[Any, Any], Eyes]


FAMILIES: dict[str, Family] = {}
"""The families by model type; `known` fills it."""


def native(model_type: str, cls: str, example: str) -> Callable[[Any], Any]:
    """Register the function from a model and its processor to `Eyes`."""

    def register(eyes: Callable[[Any, Any], Eyes]) -> Callable[[Any, Any], Eyes]:
        FAMILIES[model_type] = Family(model_type, cls, example, eyes)
        return eyes

    return register


def known() -> dict[str, Family]:
    """All families; their files are imported."""
    from mmlens.families import _find_families

    _find_families()
    return FAMILIES


def family_of(model_type: str, cls: str) -> Family:
    """The family of a model.

    Raises:
        CapabilityError: there is none; the sentence names the nearest.
    """
    families = known()
    if model_type in families:
        return families[model_type]
    if why := refused(model_type):
        raise CapabilityError(f"mmlens has no family for a {cls} ({model_type}): {why}")
    raise CapabilityError(
        f"mmlens has no family for a {cls} ({model_type}); it has"
        f" {', '.join(one.cls for one in families.values())}:"
        f" {nearest(model_type, sorted(families))}"
    )


SINCE: dict[str, str] = dict.fromkeys(
    (
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3_vl",
        "qwen3_vl_moe",
        "blip-2",
        "instructblip",
        "idefics2",
        "janus",
        "emu3",
        "idefics3",
        "smolvlm",
        "mistral3",
        "pixtral",
        "mllama",
        "idefics",
        "chameleon",
        "llava_next_video",
        "vipllava",
        "aya_vision",
        "cohere2_vision",
        "deepseek_vl",
        "lighton_ocr",
        "qwen3_5",
        "qwen3_5_moe",
        "cosmos3_omni",
        "exaone4_5",
        "glm4v",
        "glm46v",
        "glm4v_moe",
        "glm_ocr",
        "gemma4",
        "lfm2_vl",
        "qianfan_ocr",
        "perception_lm",
        "ovis2",
    ),
    "5.24",
)
"""Models and encoders that older transformers call otherwise, or read otherwise from a folder."""


def square(images: Any, side: int) -> dict[str, Any]:
    """The recipe of one crop of (side, side) pixels that an image processor cuts itself."""
    scale = 255 * images.rescale_factor  # of Chameleon's, which is none of 1/255
    filters = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    return {
        "image_size": side,
        "mean": [one / scale for one in images.image_mean],
        "std": [one / scale for one in images.image_std],
        "interpolation": filters[int(images.resample)],
    }


def hooked(
    model: Any,
    processor: Any,
    *,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    told: dict[str, Any] | None = None,
) -> HookedVLM:
    """A whole vision-language model of transformers with hooks; the caller's stays as it is.

    Args:
        processor: the checkpoint's own (`AutoProcessor`).
        name: what it is called in results.
        dtype, device: None leaves them as they are.
        told: where it came from, for the provenance.

    Raises:
        CapabilityError: a class without a family, no processor, or other logits than the class's
            own.
    """
    cls = type(model).__name__
    family = family_of(getattr(model.config, "model_type", ""), cls)
    refuse_older(since(model.config), cls)
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise CapabilityError(
            f"A {cls} reads pictures and words through its processor: write from_model(model,"
            f" processor) with AutoProcessor.from_pretrained({family.example!r})."
        )
    with ordinary():
        own = cast(share_weights(adapters.plain(model)), device, dtype)
        # PaliGemma's other kernels look both ways at words alone; a bridge's copy is eager, too
        inside = own.config.get_text_config() is not own.config
        own.set_attn_implementation({"text_config" if inside else "": "eager"})
        plain_experts(own)
        eyes = family.eyes(own, processor)
        words = eyeless(own) if eyes.words is None else eyes.words
        lm = wrap_lm(words, eyes.processor.tokenizer)
        image_id = getattr(own.config, "image_token_id", None) or eyes.processor.image_token_id
        found = HookedVLM(
            eyes.vision, eyes.projection, lm, name=name or cls,
            provenance={"family": family.model_type, "source": cls} | (told or {}),
            image_reader=eyes.reader,
            prompt_reader=eyes.prompts(eyes.processor, image_id, eyes.picture),
        )  # fmt: skip
        _refuse_unfaithful(found, own, cls)
    return found


def since(config: Any) -> str:
    """The first transformers whose class of this config is read rightly; "0" for all of them."""
    eyes = getattr(config, "vision_config", None)
    kinds = (config.model_type, getattr(eyes, "model_type", ""))
    return max((SINCE[kind] for kind in kinds if kind in SINCE), default="0")


def refuse_older(least: str, cls: str) -> None:
    """Refuse a transformers that is older than this one.

    Raises:
        CapabilityError: it is.
    """
    if Version(transformers.__version__) < Version(least):
        raise CapabilityError(
            f"A {cls} is read with transformers {least} or later, and {transformers.__version__} is"
            f" installed: pip install 'transformers>={least}'."
        )


def _refuse_unfaithful(model: HookedVLM, own: Any, cls: str) -> None:
    """Compare the logits for a picture with those of the class's own forward pass.

    Raises:
        CapabilityError: they differ by more than rounding.
    """
    reader: Any = model.prompt_reader
    rows, cols = model.vision.image_size
    picture = Image.radial_gradient("L").convert("RGB").resize((cols, rows))
    prompt = Prompt(picture, "a")

    def routes() -> tuple[torch.Tensor, torch.Tensor]:
        inputs = reader.inputs(prompt)
        kinds = {k: v.to(own.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        here = {name: value.to(model.lm.device) for name, value in kinds.items()}
        theirs = own(**here, logits_to_keep=1, use_cache=False).logits[0, -1]
        last = torch.tensor([here["input_ids"].shape[1] - 1])
        return model.run(prompt, at=last)[0, 0], theirs

    try:
        with torch.no_grad():
            ours, theirs = routes()
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CapabilityError(
            f"This {cls} and its processor do not run together: {reason(error)}"
        ) from error
    found = measured.Measured(measured.apart(ours, theirs), measured.tolerance(model.lm))
    if not found.exact:
        raise CapabilityError(
            f"With hooks this {cls} gives other logits for a picture than without ({found}):"
            " its checkpoint has a setting that mmlens does not know."
        )
