"""Reading the parts of a bridge folder: no code is executed, and no weights are invented.

The small files are parsed before transformers sees them and compared with their hashes, and a part
whose tensors are not exactly those of its class is refused: transformers would initialize missing
ones randomly.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.language import load_lm, load_tokenizer
from mmlens.checkpoints.vision import find_vision
from mmlens.checkpoints.weights import (
    SPARE,
    loaded_whole,
    plain_tensors,
    quietly,
    read_state,
    weights_hash,
)
from mmlens.runtime.casting import dtype_of
from mmlens.towers.vision.calls import without_pooler
from mmlens.towers.vision.pixels import Pixels
from mmlens.towers.vision.wrap import HookedVision, build
from mmlens.values.errors import CheckpointError, MMLensError, reason


def check_files(spec: dict[str, Any], folder: Path) -> None:
    """Compare the small files of a bridge with their hashes, where bridge.json has some.

    Raises:
        CheckpointError: one is missing, or was changed since the bridge was saved.
    """
    for name, known in (spec.get("files") or {}).items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"bridge.json of {folder.name!r} names a file outside: {name!r}.")
        if not path.is_file():
            raise CheckpointError(f"{folder.name!r} lacks the file {name}, which its bridge had.")
        if file_hash(path) != known:
            raise CheckpointError(
                f"{name} of {folder.name!r} was changed since the bridge was saved; if that is"
                " meant, load it with verify=False."
            )


def file_hash(path: Path) -> str:
    """sha256 of the bytes of a file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path.name!r} cannot be read: {error.strerror}.") from error


def check_weights(spec: dict[str, Any], loaded: dict[str, Any], name: str) -> None:
    """Compare the parts as they were read with the hashes of their weights in bridge.json.

    Raises:
        CheckpointError: a weight was changed.
    """
    for part, known in (spec.get("provenance") or {}).get("sha256", {}).items():
        if weights_hash(loaded[part].state_dict()) != known:
            raise CheckpointError(
                f"The weights of {part} in {name!r} were changed since the bridge was saved; if"
                " that is meant, load it with verify=False."
            )


def load_vision(spec: dict[str, Any], folder: Path) -> HookedVision:
    """The encoder in the dtype of its file, built from its class or arch."""
    where = f"{folder.name}/ of {folder.parent.name!r}"
    if "hub" in spec or "folder" in spec:
        source, revision = _elsewhere(spec, folder.parent)
        module: Any = find_vision(source, revision=revision).module
    elif not folder.is_dir():
        raise CheckpointError(f"The folder {folder.parent.name!r} has no {folder.name}/ in it.")
    elif spec["kind"] == "hf":
        module = from_folder(spec["class"], folder, SPARE)
    else:
        module = _filled(spec, folder)
    try:
        vision = HookedVision(
            module,
            spec["kind"],
            Pixels.from_dict(spec),
            n_prefix=spec.get("drop_prefix_tokens"),
            pooled=bool(spec.get("pooled", False)),
            arch=spec.get("arch"),
            feature_layer=spec.get("feature_layer", "last_hidden_state"),
        )
    except MMLensError as error:
        raise CheckpointError(f"bridge.json of {folder.parent.name!r}, vision: {error}") from error
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{where} does not run as bridge.json says: {reason(error)}"
        ) from error
    _check_grid(spec, vision, folder.parent.name)
    return vision


def load_lm_folder(spec: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """The language model in the dtype of its file, and its tokenizer."""
    if "hub" in spec or "folder" in spec:
        source, revision = _elsewhere(spec, folder.parent)
        kind = dtype_of(spec.get("dtype")) or torch.float32
        hf = load_lm(source, dtype=kind, revision=revision)
        rows = spec.get("rows")
        if rows and hf.get_input_embeddings().num_embeddings != rows:
            hf.resize_token_embeddings(rows, mean_resizing=False)
        return hf, load_tokenizer(source, revision)
    if not folder.is_dir():
        raise CheckpointError(f"The folder {folder.parent.name!r} has no {folder.name}/ in it.")
    hf = from_folder(spec["class"], folder)
    if not spec.get("tokenizer", True):
        return hf, None
    words = load_tokenizer(folder)
    rows = hf.get_input_embeddings().num_embeddings
    if len(words) > rows:
        raise CheckpointError(
            f"The tokenizer of {folder.name}/ has {len(words)} words and the model rows for {rows}:"
            " it is another model's."
        )
    return hf, words


def from_folder(name: str, folder: Path, spare: tuple[str, ...] = ()) -> Any:
    """A model class of transformers from a folder: safetensors only, none of the folder's code.

    Args:
        name: the class.
        folder: holds config.json and the tensors.
        spare: prefixes of the names of optional tensors.
    """
    import transformers

    where = f"{folder.name}/ of {folder.parent.name!r}"
    cls: Any = getattr(transformers, name, None)
    if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
        raise CheckpointError(
            f"bridge.json says that {folder.name}/ is a {name!r}, no model of transformers."
        )
    stored = _check_folder(cls, name, folder)
    _check_size(cls, name, folder, stored)
    made: Any = cls
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "dtype": "auto"}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    options |= without_pooler(cls)
    try:
        with quietly():
            model, told = made.from_pretrained(folder, **options)
    except Exception as error:  # a config.json can make transformers raise anything
        raise CheckpointError(
            f"{folder.name}/ can't be loaded as a {name} from its config.json: {reason(error)}"
        ) from error
    loaded_whole(told, f"model.safetensors in {where}", spare)
    odd = [key for key in sorted(told["unexpected_keys"]) if not key.startswith(spare or "\0")]
    own = model.state_dict()
    odd += [
        key
        for key, value in own.items()
        if key in stored and value.is_floating_point() and "F" not in stored[key][0]
    ]
    if odd:
        raise CheckpointError(
            f"model.safetensors in {where} holds {odd[0]}, which a {name} has not, or not as such"
            " numbers."
        )
    return model.eval()


Stored = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each tensor of a part, by name."""


def _check_folder(cls: Any, name: str, folder: Path) -> Stored:
    """The files of a part, each parsed by itself."""
    said = {path.name: read_json(path) for path in sorted(folder.glob("*.json"))}
    if "config.json" not in said:
        raise CheckpointError(f"{folder.name}/ can't be loaded as a {name}: it has no config.json.")
    config = said["config.json"]
    if config.get("quantization_config"):
        raise CheckpointError(
            f"config.json of {folder.name}/ has a quantization_config: the weights of a bridge are"
            " plain numbers; take the key out, or save the model in float32."
        )
    kind, known = config.get("model_type"), cls.config_class.model_type
    inner = getattr(cls.config_class, "base_config_key", "")
    if kind != known and inner not in config:
        raise CheckpointError(
            f"config.json of {folder.name}/ is of a {kind!r}, and the {name} of bridge.json is a"
            f" {known!r}."
        )
    index = said.get("model.safetensors.index.json", {}).get("weight_map")
    files = sorted(set(index.values())) if isinstance(index, dict) else ["model.safetensors"]
    stored: Stored = {}
    for file in files:
        if not (folder / str(file)).is_file():
            raise CheckpointError(f"{folder.name}/ can't be loaded as a {name}: it has no {file}.")
        stored |= plain_tensors(folder / str(file))
    return stored


def _check_size(cls: Any, name: str, folder: Path, stored: Stored) -> None:
    """Refuse a config.json of a larger model before transformers allocates it."""
    try:
        with torch.device("meta"):
            config = cls.config_class.from_pretrained(folder, local_files_only=True)
            own = cls(config, **without_pooler(cls)).state_dict()
    except Exception as error:  # a config.json can make transformers raise anything
        raise CheckpointError(
            f"{folder.name}/ can't be loaded as a {name} from its config.json: {reason(error)}"
        ) from error
    for key, value in own.items():
        if key in stored and stored[key][1] != tuple(value.shape):
            raise CheckpointError(
                f"model.safetensors in {folder.name}/ does not fit config.json beside it: {key} is"
                f" {stored[key][1]}, and {tuple(value.shape)} is needed."
            )
    needed = sum(value.numel() for value in {id(v): v for v in own.values()}.values())
    there = sum(math.prod(shape) for _, shape in stored.values())
    if needed > 2 * there:  # tied tensors are stored once
        raise CheckpointError(
            f"model.safetensors in {folder.name}/ holds {there} numbers, and config.json beside it"
            f" describes a {name} of {needed}."
        )


def _filled(spec: dict[str, Any], folder: Path) -> Any:
    """A module of open_clip or timm with the tensors of its file, in their dtype."""
    try:
        module = build(spec)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, AssertionError) as error:
        raise CheckpointError(
            f"The arch in bridge.json of {folder.parent.name!r} does not build: {reason(error)}"
        ) from error
    state = read_state(folder / "model.safetensors")
    own = module.state_dict()
    odd = [
        k
        for k, v in state.items()
        if k in own and v.is_floating_point() != own[k].is_floating_point()
    ]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"model.safetensors in {folder.name}/ does not fit: {' '.join(str(error).split())}"
        ) from error
    if odd:
        raise CheckpointError(
            f"model.safetensors in {folder.name}/ holds {odd[0]} not as such numbers."
        )
    return module.to(next(v.dtype for v in state.values() if v.is_floating_point()))


def _elsewhere(spec: dict[str, Any], folder: Path) -> tuple[str, str | None]:
    """The location of a named part: a hub id with its revision, or a folder beside the bridge."""
    if "folder" not in spec:
        return spec["hub"], spec.get("revision")
    place = folder / spec["folder"]
    if not place.exists():
        what = "file" if place.suffix == ".gguf" else "folder"
        raise CheckpointError(
            f"bridge.json of {folder.name!r} names the {what} {spec['folder']!r}, which is not"
            " there."
        )
    return str(place), None


def _check_grid(spec: dict[str, Any], vision: HookedVision, name: str) -> None:
    """Compare the encoder's patch grid with that of the saved bridge."""
    grid = spec.get("grid")
    if grid is not None and tuple(grid) != vision.grid:
        raise CheckpointError(
            f"bridge.json of {name!r} says a grid of {tuple(grid)}, and its encoder gives"
            f" {vision.grid} at image_size {vision.image_size}."
        )
    size = getattr(getattr(vision.module, "config", None), "image_size", None)
    own = (size, size) if isinstance(size, int) else size
    if grid is None and own is not None and tuple(own) != vision.image_size:
        raise CheckpointError(
            f"bridge.json of {name!r} says image_size {vision.image_size}, and the encoder's"
            f' config.json {tuple(own)}: if that is meant, write "grid": {list(vision.grid)} too.'
        )
