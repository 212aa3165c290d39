"""Reading the parts of a bridge folder: the format is checked, and nothing of it is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints import quietly, read_state
from mmlens.errors import CheckpointError
from mmlens.vision import HookedVision, build
from mmlens.vision_hooked import without_pooler
from mmlens.vision_pixels import Pixels

FORMAT = 1


def read_spec(folder: Path) -> dict[str, Any]:
    """bridge.json, checked for its format."""
    path = folder / "bridge.json"
    if not path.is_file():
        raise CheckpointError(f"{str(folder)!r} is no bridge: it has no bridge.json.")
    try:
        spec = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"bridge.json of {folder.name!r} is not JSON: {error}") from error
    if spec.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder.name!r} is written in format {spec.get('format')!r}; this mmlens reads "
            f"{FORMAT}: update mmlens."
        )
    missing = {"vision", "projection", "lm"} - set(spec)
    if missing:
        raise CheckpointError(f"bridge.json of {folder.name!r} does not say {sorted(missing)}.")
    if spec["projection"].get("kind") != "linear":
        kind = spec["projection"].get("kind")
        raise CheckpointError(
            f"{folder.name!r} needs a {kind!r} projection; mmlens reads 'linear'."
        )
    return spec


def load_vision(spec: dict[str, Any], folder: Path, dtype: torch.dtype | None) -> HookedVision:
    """The encoder, built from its class or arch and filled from safetensors."""
    if "hub" in spec:
        from mmlens.families.parts import find_vision

        module = find_vision(spec["hub"], dtype=dtype, revision=spec.get("revision")).module
    elif not folder.is_dir():
        raise CheckpointError(f"The folder {folder.parent.name!r} has no {folder.name}/ in it.")
    elif spec["kind"] == "hf":
        module = _from_pretrained(spec.get("class", ""), folder, dtype)
    else:
        module = build(spec)
        state = read_state(folder / "model.safetensors")
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"The weights in {folder.name}/ do not fit: {error}") from error
        stored = next(v.dtype for v in state.values() if v.is_floating_point())
        module = module.to(dtype or stored)
    return HookedVision(
        module,
        spec["kind"],
        Pixels.from_dict(spec),
        n_prefix=spec.get("drop_prefix_tokens"),
        pooled=bool(spec.get("pooled", False)),
        arch=spec.get("arch"),
        feature_layer=spec.get("feature_layer", "last_hidden_state"),
    )


def load_lm_folder(
    spec: dict[str, Any], folder: Path, dtype: torch.dtype | None
) -> tuple[Any, Any]:
    """The language model and its tokenizer."""
    from mmlens.families.parts import load_lm, load_tokenizer

    if "hub" in spec:
        revision = spec.get("revision")
        hf = load_lm(spec["hub"], dtype=dtype or torch.float32, revision=revision)
        rows = spec.get("rows")
        if rows and hf.get_input_embeddings().num_embeddings != rows:
            hf.resize_token_embeddings(rows, mean_resizing=False)
        return hf, load_tokenizer(spec["hub"], revision)
    if not folder.is_dir():
        raise CheckpointError(f"The folder {folder.parent.name!r} has no {folder.name}/ in it.")
    return _from_pretrained(spec.get("class", ""), folder, dtype), load_tokenizer(folder)


def _from_pretrained(name: str, folder: Path, dtype: torch.dtype | None) -> Any:
    """A model class of transformers from a folder: safetensors only, none of the folder's code."""
    import transformers

    cls: Any = getattr(transformers, name, None)
    if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
        raise CheckpointError(f"{folder.name}/ is said to be a {name!r}, no model of transformers.")
    options: dict[str, Any] = {"dtype": dtype if dtype is not None else "auto"}
    options |= {"use_safetensors": True, "local_files_only": True, **without_pooler(cls)}
    try:
        with quietly():
            return cls.from_pretrained(folder, **options).eval()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder.name}/ can't be loaded as a {name}: {reason}") from error
