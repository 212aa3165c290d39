"""Dual encoders: CLIP, SigLIP and CoCa of open_clip, and CLIP and its relatives of transformers.

load("open_clip:ViT-B-32/openai")
load("openai/clip-vit-base-patch32")
from_model(model, preprocess, tokenizer)             # one in memory
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.dual_models import find_dual, names_dual
from mmlens.families import family
from mmlens.model.hooked_dual_encoder import HookedDualEncoder
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.casting import device_of, dtype_of
from mmlens.towers.dual_halves import halves_of
from mmlens.values.arguments import shown, text
from mmlens.values.errors import ArgumentError


@family({}, takes=names_dual)
def load_dual(
    name: str,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> HookedDualEncoder:
    """A dual encoder by its library's name, or from a folder.

    Args:
        name: "open_clip:ARCHITECTURE/WEIGHTS", a hub id, or a folder.
        dtype, device: None leaves them as they are (float32, CPU).
        revision: git revision of a hub id.
    """
    model, preprocess, tokenizer = find_dual(name, revision)
    told = {"family": "dual", "source": name} | ({"revision": revision} if revision else {})
    return _hooked(model, preprocess, tokenizer, name, told, dtype, device)


def from_model(
    encoder: Any,
    preprocess: Any = None,
    tokenizer: Any = None,
    *,
    name: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
) -> HookedDualEncoder:
    """A dual encoder in memory as a hooked model; the caller's stays as it is.

    Args:
        encoder: of open_clip (or what `create_model_and_transforms` returns) or transformers.
        preprocess: its evaluation transform, its image processor, or the processor of both; None
            for the model's own.
        tokenizer: None for the processor's. Without any the model reads token ids instead of texts.
        name: what the model is called in results.
        dtype, device: None leaves them as they are.

    Raises:
        CapabilityError: it is no dual encoder of these libraries.
    """
    first: Any = encoder[0] if isinstance(encoder, tuple) and encoder else encoder
    if not isinstance(first, nn.Module):
        raise ArgumentError(
            f"encoder={shown(encoder)} is no module: give a dual encoder of open_clip or of"
            " transformers; mm.load(...) takes a name."
        )
    named = type(first).__name__ if name is None else text(name, "name", empty=False)
    told = {"family": "dual", "source": type(first).__name__}
    return _hooked(encoder, preprocess, tokenizer, named, told, dtype, device)


def _hooked(
    model: Any, preprocess: Any, tokenizer: Any, name: str, told: Any, dtype: Any, device: Any
) -> HookedDualEncoder:
    kind, place = dtype_of(dtype), device_of(device)
    with ordinary():
        halves = halves_of(model, preprocess, tokenizer)
        found = HookedDualEncoder(halves, name=name, provenance=told)
        asked = [one for one in (place, kind) if one is not None]
        return found.to(*asked) if asked else found
