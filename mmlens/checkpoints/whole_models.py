"""Whole models of transformers by hub id or folder: what kind they are, and loading them.

    config_of("llava-hf/llava-1.5-7b-hf")         of model type "llava", from its config.json
    find_whole("llava-hf/llava-1.5-7b-hf")        the model and its processor

Only names of remote models use the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.weights import expanded, loaded_whole, quietly
from mmlens.towers.language.kinds import check_weights
from mmlens.values.arguments import choice
from mmlens.values.errors import CapabilityError, CheckpointError
from mmlens.values.hub_errors import unfound
from mmlens.values.optional_packages import package

ATTENTION = ("eager", "sdpa")
"""The attention of transformers that a model may be loaded with."""


def in_folder(folder: Path) -> str:
    """The model type of a whole vision-language model in a folder, or ""."""
    told = _config_in(folder)
    words = "text_config" in told or "perceiver_config" in told  # IDEFICS has its words outside
    both = ("vision_config" in told and words) or "vq_config" in told
    return str(told.get("model_type", "")) if both else ""


def type_in(folder: Path) -> str:
    """The model type of any model of transformers in a folder, or ""."""
    return str(_config_in(folder).get("model_type", ""))


def _config_in(folder: Path) -> dict[str, Any]:
    try:
        told = read_json(folder / "config.json")
    except CheckpointError:
        return {}
    return told if isinstance(told, dict) else {}


def class_of(config: Any) -> str:
    """The class of transformers that a config is of; its model type where none is known."""
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    own = config.architectures or [names.get(config.model_type, config.model_type)]
    return str(own[0] if isinstance(own, list | tuple) else own)


def config_of(source: str, revision: str | None, known: Iterable[str]) -> Any:
    """The config of transformers of a hub id or folder.

    Args:
        known: names of which an error lists the nearest.

    Raises:
        ModelError: a name that does not exist or cannot be fetched.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(*_place(source), **_safe(source, revision))
    except Exception as error:  # transformers and the hub raise many exception types
        raise unfound("model", source, error, known) from error


def find_whole(
    source: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device_map: Any = None,
    attn: str | None = None,
    known: Iterable[str] = (),
) -> tuple[Any, Any]:
    """A whole vision-language model and its processor.

    Args:
        dtype: of the weights; None: float32.
        device_map: as transformers takes it; all weights must end up on one device.
        attn: the attention that transformers computes with, "eager" or "sdpa".

    Raises:
        ModelError: a name that does not exist or cannot be fetched.
        CheckpointError: a folder that does not hold the whole of it.
        CapabilityError: weights that are not on one device.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options: dict[str, Any] = {"dtype": dtype or torch.float32, "output_loading_info": True}
    if device_map is not None:
        package("accelerate", "gguf")
        options["device_map"] = device_map
    if attn is not None:
        options["attn_implementation"] = choice(attn, "attn", ATTENTION)
    safe = _safe(source, revision)
    try:
        with quietly():
            auto: Any = AutoModelForImageTextToText
            model, told = auto.from_pretrained(*_place(source), **options, **safe)
            processor = AutoProcessor.from_pretrained(*_place(source), **safe)
    except Exception as error:  # transformers and the hub raise many exception types
        raise unfound("vision-language model", source, error, known) from error
    loaded_whole(told, repr(source))
    return _in_one_place(model), processor


def _place(source: str) -> tuple[str]:
    folder = expanded(source)
    return (str(folder) if folder.is_dir() else source.removeprefix("hf:"),)


def _safe(source: str, revision: str | None) -> dict[str, Any]:
    local = expanded(source).is_dir()
    return {"revision": revision, "local_files_only": local, "trust_remote_code": False}


def _in_one_place(model: Any) -> Any:
    """The model without accelerate's hooks, which move values between devices."""
    check_weights(model, type(model).__name__)
    places = {str(weight.device) for weight in model.parameters()}
    if len(places) > 1:
        raise CapabilityError(
            f"device_map spreads this {type(model).__name__} over {', '.join(sorted(places))}, and"
            " hooks read and write all layers on one device: load it in bfloat16 on one, as in"
            " device='cuda', dtype='bfloat16'."
        )
    if hasattr(model, "hf_device_map"):
        from accelerate.hooks import remove_hook_from_submodules

        remove_hook_from_submodules(model)
        del model.hf_device_map
    return model.eval()
