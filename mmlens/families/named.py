"""Models of transformers by hub id, folder or object: dual encoders and whole vision-language ones.

    load("llava-hf/llava-1.5-7b-hf")             load("openai/clip-vit-base-patch32")
    from_model(model, processor)                 from_model(model, preprocess, tokenizer)

Its configuration says which of the two a model is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from mmlens.checkpoints.dual_models import KINDS, KNOWN
from mmlens.checkpoints.weights import expanded
from mmlens.checkpoints.whole_models import class_of, config_of, find_whole, in_folder, type_in
from mmlens.families import diffusion, dual, family, native
from mmlens.families.refused import refused
from mmlens.model.hooked_diffusion import HookedDiffusion
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.pictures_and_texts import PicturesAndTexts
from mmlens.runtime.casting import device_of, dtype_of
from mmlens.towers.dual_halves import is_dual
from mmlens.towers.language.inside import whole
from mmlens.values.arguments import flag, text
from mmlens.values.errors import ArgumentError, CapabilityError, ModelError

_HUB_ID = re.compile(r"(hf:)?[\w.-]+/[\w.-]+")
_ELSEWHERE = {
    "gpt-?4": "GPT-4V is closed, so nothing inside of it can be read",
    "(allenai/)?(unified-?io|uio)": "Unified-IO has no loader that is kept up, in transformers or"
    " elsewhere",
}
"""Models that papers name and nobody can load here, by patterns of their names."""


def names_one(name: str) -> bool:
    """Whether this is a hub id, or a folder of a whole vision-language model (or one like it)."""
    folder = expanded(name)
    if _elsewhere(name) and not folder.exists():
        return True
    if folder.is_dir():
        kind = in_folder(folder) or type_in(folder)
        return bool(in_folder(folder) or refused(kind)) and kind not in KINDS
    return bool(_HUB_ID.fullmatch(name)) and not folder.exists()


@family({}, takes=names_one)
def load_named(
    name: str,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn: str | None = None,
    multimodal: str | None = None,
) -> HookedVLM | PicturesAndTexts:
    """A dual encoder or whole vision-language model of transformers.

    Args:
        name: a hub id, or a folder that `save_pretrained` wrote, of the model and its processor.
        dtype, device: None: float32 on the CPU.
        device_map: as in transformers, for one device: "auto" on a machine with one GPU.
        revision: git revision of a hub id.
        attn: "eager" or "sdpa", for what mmlens does not open itself; None: transformers' choice.
        multimodal: of a FLAVA, what it answers with by its multimodal encoder: "match", "words" or
            "states"; None: the dual encoder.
    """
    if (why := _elsewhere(name)) and not expanded(name).exists():
        raise ModelError(
            f"{why}: the nearest open models are Emu3 ('BAAI/Emu3-Chat-hf') and Janus"
            " ('deepseek-community/Janus-Pro-1B'), and texts from anywhere are compared by"
            " mm.compare_outputs(model, texts)."
        )
    examples = [one.example for one in native.known().values()]
    config = config_of(name, revision, [*KNOWN, *examples])
    kind = config.model_type
    if kind in KINDS:
        if device_map is not None or attn is not None:
            raise ArgumentError(f"load({name!r}) is a dual encoder, without device_map= and attn=.")
        return dual.load_dual(
            name, dtype=dtype, device=device, revision=revision, multimodal=multimodal
        )
    if multimodal is not None:
        raise ArgumentError(f"load({name!r}) is no FLAVA and takes no multimodal=.")
    native.family_of(kind, class_of(config))
    model, processor = find_whole(
        name, revision=revision, dtype=dtype_of(dtype), device_map=device_map, attn=attn,
        known=examples,
    )  # fmt: skip
    folder = expanded(name)
    named = folder.name if folder.is_dir() else name
    told = {"source": named} | ({"revision": revision} if revision else {})
    return native.hooked(model, processor, name=named, device=device_of(device), told=told)


def _elsewhere(name: str) -> str:
    """Why a model of this name cannot be loaded, or ""."""
    lowered = name.lower().removeprefix("hf:")
    return next((why for begin, why in _ELSEWHERE.items() if re.match(begin, lowered)), "")


def from_model(
    model: Any,
    processor: Any = None,
    tokenizer: Any = None,
    *,
    name: str | None = None,
    arch: Mapping[str, Any] | str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    captions: bool = False,
    multimodal: str | None = None,
) -> PicturesAndTexts | HookedVLM | HookedDiffusion:
    """A model in memory as a hooked model; the caller's stays as it is.

    Args:
        model: a whole vision-language model of transformers, a dual encoder of open_clip (or
            what `create_model_and_transforms` returns) or of transformers, or a pipeline of
            diffusers.
        processor: of pictures and words (of transformers); of a dual encoder also the evaluation
            transform or image processor, or None for the model's own.
        tokenizer: of a dual encoder; None for the processor's. Without any the model reads token
            ids instead of texts.
        name: what the model is called in results.
        arch: open_clip's name of the architecture, or its configuration (embed_dim, vision_cfg,
            text_cfg), needed only to save the model.
        dtype, device: None leaves them as they are.
        captions: of a CoCa, the captioner in place of the dual encoder.
        multimodal: of a FLAVA, what it answers with by its multimodal encoder ("match", "words" or
            "states"), in place of the dual encoder.

    Raises:
        CapabilityError: it is none of these, or of a class that mmlens has no family for.
    """
    if diffusion.is_pipeline(model):
        for given, value in {"processor": processor, "tokenizer": tokenizer, "arch": arch}.items():
            if value is not None:
                raise ArgumentError(f"A pipeline has all its parts: leave {given}= out.")
        return diffusion.from_pipeline(model, name=name, dtype=dtype, device=device)
    config = getattr(model, "config", None)
    if is_dual(model) or not hasattr(config, "model_type"):
        return dual.from_dual(
            model, processor, tokenizer, name=name, arch=arch, dtype=dtype, device=device,
            captions=captions, multimodal=multimodal,
        )  # fmt: skip
    cls = type(model).__name__
    kind = str(getattr(config, "model_type", ""))
    if refused(kind):
        native.family_of(kind, cls)
    if not whole(config):
        raise CapabilityError(
            f"A {cls} is neither a dual encoder nor a whole vision-language model: join it with"
            " what it lacks, mm.from_parts(vision=encoder, lm=language_model)."
        )
    special = flag(captions, "captions") or multimodal is not None
    if tokenizer is not None or arch is not None or special:
        raise ArgumentError(
            f"A {cls} is read through its processor alone: write from_model(model, processor)."
        )
    named = None if name is None else text(name, "name", empty=False)
    kinds = {"dtype": dtype_of(dtype), "device": device_of(device)}
    return native.hooked(model, processor, name=named, **kinds)
