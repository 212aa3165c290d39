"""Diffusion models of diffusers: Stable Diffusion, SDXL, PixArt, Stable Audio, and others alike.

load("my-pipeline")                                   # a folder that save_pretrained wrote
load("diffusers:stable-diffusion-v1-5/stable-diffusion-v1-5")
from_pipeline(pipe)                                   # one in memory
"""

from __future__ import annotations

from typing import Any

import torch

from mmlens.checkpoints.pipelines import find_pipeline, names_pipeline
from mmlens.checkpoints.weights import expanded
from mmlens.families import family
from mmlens.model.hooked_diffusion import HookedDiffusion
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.casting import device_of, dtype_of
from mmlens.towers.denoiser.pipeline import Pipeline
from mmlens.values.arguments import text


@family({}, takes=names_pipeline)
def load_pipeline(
    name: str,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> Any:
    """A pipeline of diffusers as a `HookedDiffusion`, from safetensors only.

    Args:
        name: a folder that `save_pretrained` wrote, or "diffusers:" and a hub id.
        dtype, device: None: float32 on the CPU.
        revision: git revision of a hub id.
    """
    pipe = find_pipeline(name, dtype_of(dtype) or torch.float32, revision)
    folder = expanded(name)
    named = folder.name if folder.is_dir() else name
    told = {"source": named} | ({"revision": revision} if revision else {})
    return from_pipeline(pipe, name=named, device=device, told=told)


def is_pipeline(model: Any) -> bool:
    """Whether this is a pipeline of diffusers."""
    return hasattr(model, "components") and hasattr(model, "scheduler") and callable(model)


def from_pipeline(
    pipe: Any,
    *,
    name: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    told: dict[str, Any] | None = None,
) -> HookedDiffusion:
    """A pipeline in memory as a hooked model; the caller's stays as it is.

    Args:
        name: what the model is called in results.
        dtype, device: None leaves them as they are.
        told: where it comes from.

    Raises:
        CapabilityError: its denoiser has no hook points here.
    """
    kind = type(pipe).__name__
    named = kind if name is None else text(name, "name", empty=False)
    with ordinary():
        about = {"family": "diffusion", **(told or {"source": kind})}
        model = HookedDiffusion(Pipeline(pipe), name=named, provenance=about)
    asked = [one for one in (device_of(device), dtype_of(dtype)) if one is not None]
    return model.to(*asked) if asked else model
