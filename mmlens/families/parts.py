"""Any encoder, any projection, any causal language model, joined into one hooked bridge.

    from_parts(vision="open_clip:ViT-B-32/openai", lm="gpt2")          # fresh projection, to train
    from_parts(vision="hf:google/vit-base-patch16-224", projection="proj.ckpt", lm="./my-lm")
    from_parts(vision=my_beit, projection=nn.Linear(1024, 4096), lm=my_gptj, tokenizer=my_tokenizer)

An object in memory or a local folder is used as it is; only a *name* of a remote model reaches the
network, and a name that doesn't exist is answered with the nearest that do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.gguf import gguf_file, gguf_provenance
from mmlens.checkpoints.language import find_lm
from mmlens.checkpoints.llava_parts import apart
from mmlens.checkpoints.vision import find_vision
from mmlens.checkpoints.weights import (
    check_projection,
    expanded,
    fresh_linear,
    projection_from,
)
from mmlens.model.hooked_vision_model import HookedVisionModel
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.queries import LatentReader
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.casting import device_of, dtype_of
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language.language_model import LanguageModel
from mmlens.towers.vision.latents import HookedLatents
from mmlens.towers.vision.wrap import HookedVision
from mmlens.values.arguments import flag
from mmlens.values.errors import ModelError


def from_parts(
    vision: Any,
    projection: Any = None,
    lm: Any = None,
    tokenizer: Any = None,
    *,
    name: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | dict[str, str] | None = None,
    seed: int = 0,
    fold_ln: bool = False,
    feature_layer: Any = None,
    prepend_bos: bool = False,
    family: str = "parts",
) -> HookedVLM | HookedVisionModel:
    """A `HookedVLM` from three parts, or a `HookedVisionModel` from a vision encoder alone.

    Args:
        vision: a module, a HookedVision, a folder, or a name: "open_clip:MODEL/WEIGHTS",
            "timm:MODEL", "hf:ID" or a plain hub id.
        projection: a module, a state dict, a path to one, or None for a fresh linear map (`seed`).
        lm: a causal LM, a TransformerLens model, a folder, a hub id, or a GGUF file: a path that
            ends in .gguf, or "hf:OWNER/REPO/FILE.gguf". A whole LLaVA may stand for `vision` and
            `lm` alike, and brings its projector and feature layer.
        tokenizer: an object, a folder, a GGUF file or a hub id; None takes the one beside `lm`.
        dtype, device: of all three parts; None leaves them as they are (float32, CPU).
        revision: git revision of hub ids; a dict {"vision": ..., "lm": ...} for each its own.
        fold_ln: as in TransformerLens' `from_pretrained`.
        feature_layer: what of the encoder is projected: a hook point of it such as
            "blocks.22.hook_resid_post", where the encoder then ends, or the config of a LLaVA,
            which names it; None: its last hidden state.
        prepend_bos: whether every prompt begins with the tokenizer's BOS, before the picture.
        family: what the provenance says it is.

    Raises:
        ModelError: a name that doesn't exist, with the nearest that do.
        CheckpointError: the projection doesn't fit between the two.
        AddressError: the encoder has no such feature layer.
        ModelError: `prepend_bos`, and the tokenizer has no BOS.
    """
    pin = revision if isinstance(revision, dict) else dict.fromkeys(("vision", "lm"), revision)
    kind, place = dtype_of(dtype), device_of(device)
    sources = {"vision": label(vision), "lm": label(lm), "projection": label(projection)}
    if lm is None:
        return _vision_alone(
            vision, projection, name, kind, place, pin.get("vision"), feature_layer, family
        )
    with ordinary():
        vision, projection, lm, layer = apart(vision, projection, lm, feature_layer)
        eye = find_vision(vision, dtype=kind, revision=pin.get("vision"))
        eye = eye.at(layer) if layer else eye
        words = find_lm(
            lm, tokenizer, dtype=kind, device=place, revision=pin.get("lm"), fold_ln=fold_ln
        )
        _check_bos(prepend_bos, words)
        d_model = words.d_embed
        if projection is None:
            linear: nn.Module = fresh_linear(eye.d_vision, d_model, seed)
        else:
            linear = share_weights(projection_from(projection))  # the caller's stays as it is
        class_of_lm = type(words.hf if words.hf is not None else words.root).__name__
        parts = f"{type(eye.module).__name__} and {class_of_lm}"
        check_projection(linear, eye.d_vision, d_model, parts, eye.grid[0] * eye.grid[1])
        linear = linear.to(words.device, words.dtype)
        if eye is vision and eye.device != words.device:
            eye = eye.at(eye.feature_layer)  # the caller's stays
        eye = eye.to(words.device)
    sources["projection"] = sources["projection"] or (
        f"fresh, seed {seed}" if projection is None else label(projection)
    )
    revisions = {part: value for part, value in pin.items() if value}
    provenance = {"family": family, **sources} | ({"revision": revisions} if revisions else {})
    provenance |= _file_of(lm, pin.get("lm"))
    name = name or f"{sources['vision']} - {sources['lm']}"
    return HookedVLM(eye, linear, words, name=name, provenance=provenance, prepend_bos=prepend_bos)


def _check_bos(wanted: bool, lm: LanguageModel) -> None:
    """Refuse to begin with a token that is not there."""
    if flag(wanted, "prepend_bos") and getattr(lm.tokenizer, "bos_token_id", None) is None:
        raise ModelError(
            "prepend_bos=True asks for a BOS token, which this tokenizer has not: leave it out, or"
            " set tokenizer.bos_token first."
        )


def _file_of(lm: Any, revision: str | None) -> dict[str, Any]:
    """What the provenance says of a language model that came from one file."""
    file = gguf_file(lm, revision) if isinstance(lm, (str, Path)) else None
    return {"gguf": gguf_provenance(file)} if file is not None else {}


def _vision_alone(
    vision: Any,
    projection: Any,
    name: str | None,
    dtype: torch.dtype | None,
    device: torch.device | None,
    revision: str | None,
    feature_layer: Any,
    family: str,
) -> HookedVisionModel:
    """A vision encoder without a language model, with its classifier where it has one."""
    if vision is None:
        raise ModelError(
            "from_parts needs a language model, lm='gpt2', a folder or a model; or a vision encoder"
            " alone, as in from_parts(vision='timm:resnet50')."
        )
    if projection is not None:
        raise ModelError(
            "A projection leads into a language model, and there is none: give lm='gpt2', a folder"
            " or a model, or leave the projection out."
        )
    with ordinary():
        eye = find_vision(vision, dtype=dtype, revision=revision)
        if feature_layer is not None or (eye is vision and device not in (None, eye.device)):
            eye = eye.at(feature_layer or eye.feature_layer)  # the caller's stays
        eye = eye if device is None else eye.to(device)
    named = label(vision)
    provenance = {"family": family, "vision": named}
    found = HookedVisionModel(eye, name=name or named, provenance=provenance)
    if isinstance(eye, HookedLatents):
        found.image_reader = LatentReader()
    return found


def label(source: Any) -> str:
    """A name for a part: its id, the last piece of its path, or its class."""
    if source is None:
        return ""
    if isinstance(source, (str, Path)) and (
        isinstance(source, Path) or source.startswith("~") or Path(source).exists()
    ):
        return expanded(source).resolve().name
    if isinstance(source, str):
        return source
    inner = getattr(source, "module", None) if isinstance(source, HookedVision) else None
    inner = source.hf if isinstance(source, LanguageModel) and source.hf is not None else inner
    return type(inner if inner is not None else source).__name__
