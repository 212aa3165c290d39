"""Dual encoders: CLIP, SigLIP and CoCa of open_clip, and CLIP and its relatives of transformers.

load("open_clip:ViT-B-32/openai")
load("openai/clip-vit-base-patch32")
from_dual(model, preprocess, tokenizer)              # one in memory
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.dual_folder import check_saved_weights, told_of
from mmlens.checkpoints.dual_models import find_dual, names_dual, open_clip_arch
from mmlens.checkpoints.language import load_tokenizer
from mmlens.checkpoints.weights import expanded
from mmlens.families import family
from mmlens.families.coca import captioner
from mmlens.families.flava import HEADS, multimodal_encoder
from mmlens.model.hooked_dual_encoder import HookedDualEncoder
from mmlens.model.hooked_multimodal_encoder import ANSWERS
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.pictures_and_texts import PicturesAndTexts
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.casting import device_of, dtype_of
from mmlens.towers.dual_halves import halves_of
from mmlens.values.arguments import choice, flag, instance, shown, text
from mmlens.values.errors import ArgumentError


@family({}, takes=names_dual)
def load_dual(
    name: str,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    captions: bool = False,
    multimodal: str | None = None,
) -> PicturesAndTexts | HookedVLM:
    """A dual encoder by its library's name, or from a folder.

    Args:
        name: "open_clip:ARCHITECTURE/WEIGHTS", a hub id, or a folder.
        dtype, device: None leaves them as they are (float32, CPU).
        revision: git revision of a hub id.
        captions: of a CoCa, the captioner in place of the dual encoder.
        multimodal: of a FLAVA, the model with its multimodal encoder in place of the dual encoder,
            and what it answers with: "match", "words" or "states".
    """
    heads = multimodal is not None and choice(multimodal, "multimodal", ANSWERS) in HEADS
    model, preprocess, tokenizer, arch = find_dual(name, revision, heads=heads)
    folder = expanded(name)
    saved = told_of(folder) if folder.is_dir() else {}
    named = folder.name if folder.is_dir() else name
    told = {"family": "dual", "source": named} | ({"revision": revision} if revision else {})
    told |= saved.get("provenance") or {}
    words = saved.get("tokenizer", "open_clip")  # what read it when the folder was written
    if words != "open_clip":
        tokenizer = load_tokenizer(str(folder)) if words == "transformers" else None
    parts = (model, saved.get("pixels", preprocess), tokenizer)
    found = _hooked(*parts, saved.get("name", named), told, arch, captions, multimodal)
    if isinstance(found, HookedDualEncoder):
        check_saved_weights(found, saved, named)
    return _moved(found, dtype, device)


def from_dual(
    encoder: Any,
    preprocess: Any = None,
    tokenizer: Any = None,
    *,
    name: str | None = None,
    arch: Mapping[str, Any] | str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    captions: bool = False,
    multimodal: str | None = None,
) -> PicturesAndTexts | HookedVLM:
    """A dual encoder in memory as a hooked model; the caller's stays as it is.

    Args:
        encoder: of open_clip (or what `create_model_and_transforms` returns) or transformers.
        preprocess: its evaluation transform, its image processor, or the processor of both; None
            for the model's own.
        tokenizer: None for the processor's. Without any the model reads token ids instead of texts.
        name: what the model is called in results.
        arch: open_clip's name of the architecture, or its configuration (embed_dim, vision_cfg,
            text_cfg), needed only to save the model.
        dtype, device: None leaves them as they are.
        captions: of a CoCa, the captioner in place of the dual encoder.
        multimodal: of a FLAVA, what it answers with by its multimodal encoder, in place of the dual
            encoder: "match", "words" or "states".

    Raises:
        CapabilityError: it is no dual encoder of these libraries.
    """
    first: Any = encoder[0] if isinstance(encoder, tuple) and encoder else encoder
    if not isinstance(first, nn.Module):
        raise ArgumentError(
            f"encoder={shown(encoder)} is no module: give a dual encoder of open_clip or of"
            " transformers; mm.load(...) takes a name."
        )
    if hasattr(preprocess, "convert_ids_to_tokens"):
        raise ArgumentError(
            f"A {type(preprocess).__name__} reads words alone: write from_model(model, processor,"
            " tokenizer), with None for the model's own processor of pictures."
        )
    named = type(first).__name__ if name is None else text(name, "name", empty=False)
    told = {"family": "dual", "source": type(first).__name__}
    config = open_clip_arch(arch)
    if config is not None:
        instance(config, "arch", Mapping, "the name of an architecture, or its configuration")
    found = _hooked(encoder, preprocess, tokenizer, named, told, config, captions, multimodal)
    return _moved(found, dtype, device)


def _hooked(
    model: Any,
    preprocess: Any,
    tokenizer: Any,
    name: str,
    told: Any,
    arch: Any,
    captions: bool,
    multimodal: str | None,
) -> PicturesAndTexts | HookedVLM:
    with ordinary():
        if multimodal is not None:
            if captions:
                raise ArgumentError("captions= is of a CoCa and multimodal= of a FLAVA: give one.")
            return multimodal_encoder(
                model, preprocess, tokenizer, multimodal, name=name, told=told
            )
        if flag(captions, "captions"):
            return captioner(
                model, preprocess, tokenizer, name=name, told=told | {"family": "coca"}
            )
        halves = halves_of(model, preprocess, tokenizer)
        return HookedDualEncoder(halves, name=name, provenance=told, arch=arch)


def _moved(model: Any, dtype: Any, device: Any) -> Any:
    asked = [one for one in (device_of(device), dtype_of(dtype)) if one is not None]
    return model.to(*asked) if asked else model
