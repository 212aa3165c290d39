"""Pipelines of diffusers from folders and the hub: weights from safetensors, code from no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.weights import expanded, quietly
from mmlens.values.errors import CapabilityError, CheckpointError, reason
from mmlens.values.hub_errors import unfound
from mmlens.values.optional_packages import package

DIFFUSERS, INDEX = "diffusers:", "model_index.json"
KINDS = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "StableAudioPipeline",
)
"""The pipelines that are loaded by name; others like them are given in memory."""
_KNOWN = (
    "diffusers:stable-diffusion-v1-5/stable-diffusion-v1-5",
    "diffusers:stabilityai/stable-diffusion-xl-base-1.0",
    "diffusers:stabilityai/stable-audio-open-1.0",
)


def names_pipeline(name: str) -> bool:
    """Whether this is a folder of a pipeline, or diffusers' name of one."""
    return name.startswith(DIFFUSERS) or (expanded(name) / INDEX).is_file()


def find_pipeline(source: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """A pipeline from a folder, or from the hub by "diffusers:" and its id.

    Raises:
        CapabilityError: diffusers is not installed, or it is another kind of pipeline.
        CheckpointError: a folder that does not hold the whole of it as safetensors.
        ModelError: a name that does not exist or cannot be fetched.
    """
    diffusers = package("diffusers", "diffusion", "A diffusion model")
    folder = expanded(source)
    local = folder.is_dir()
    place = str(folder) if local else source.removeprefix(DIFFUSERS)
    try:
        index = folder / INDEX if local else Path(_index(place, revision))
        kind = str(read_json(index).get("_class_name"))
        if kind not in KINDS:
            raise CapabilityError(
                f"{source!r} is a {kind}, and mmlens loads {', '.join(KINDS)}: give one that is"
                " built alike in memory, mm.from_model(pipe)."
            )
        without = {"safety_checker": None} if "safety_checker" in read_json(index) else {}
        with quietly():
            return getattr(diffusers, kind).from_pretrained(
                place,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=local,
                revision=revision,
                **without,
            )
    except (CapabilityError, CheckpointError):
        raise
    except Exception as error:  # diffusers and the hub raise many exception types
        if local:
            raise CheckpointError(
                f"The folder {folder.name!r} holds no pipeline that can be loaded from safetensors:"
                f" {reason(error)}"
            ) from error
        raise unfound("diffusion model", source, error, _KNOWN) from error


def _index(hub_id: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(hub_id, INDEX, revision=revision)
