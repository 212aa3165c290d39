"""Writing a bridge folder: the description of the parts, their tensors, and hashes of both."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.bridge_json import FORMAT
from mmlens.checkpoints.folder_read import file_hash
from mmlens.checkpoints.weights import expanded, quietly, save_tensors, weights_hash
from mmlens.model.image_reader import ImageReader
from mmlens.runtime.casting import stays
from mmlens.towers.vision.wrap import HookedVision, build
from mmlens.values.errors import CheckpointError
from mmlens.values.placeless import placeless

Named = Mapping[str, str | tuple[str, str]]


def check_saved(model: Any) -> None:
    """Refuse a bridge whose parts cannot be saved as plain tensors."""
    if model.lm.hf is None:
        raise CheckpointError(
            f"{model.name!r} is made of a TransformerLens model, which cannot be saved; build it "
            "with wrap_lm(hugging_face_model) instead."
        )
    if model.prompt_reader.written_by:
        raise CheckpointError(
            f"{model.name!r} is not saved here: {model.prompt_reader.written_by}."
        )
    if model.vision is None or not isinstance(model.projection, nn.Linear):
        kind = type(model.projection).__name__
        raise CheckpointError(
            f"Only a bridge with an encoder and one nn.Linear can be saved, not with a {kind}."
        )
    if type(model.image_reader) is not ImageReader:
        kind = type(model.image_reader).__name__
        raise CheckpointError(
            f"Only a bridge whose pictures are one grid of positions can be saved, not one whose"
            f" pictures a {kind} reads: save its parts, and build the model again."
        )


def spec_of(model: Any, hf: Any, named: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The content of bridge.json, except the hashes of small files."""
    parts = {"vision": model.vision.module, "projection": model.projection, "lm": hf}
    hashes = {
        part: weights_hash(module.state_dict())
        for part, module in parts.items()
        if part not in named
    }
    lm: dict[str, Any] = {"class": type(hf).__name__}
    lm |= {"prepend_bos": True} if getattr(model, "prepend_bos", False) else {}
    lm |= {"fold_ln": True} if model.lm.folded else {}
    lm |= {"tokenizer": False} if model.tokenizer is None else {}
    vision = model.vision.spec() | {"grid": list(model.vision.grid)}
    linear = model.projection
    projection = {"kind": "linear", "d_in": linear.in_features, "d_out": linear.out_features}
    projection |= {"bias": linear.bias is not None}
    told = (("vision", vision, model.vision), ("lm", lm, model.lm))
    for part, spec, module in told:
        spec["dtype"] = _name(module.dtype)
        if part in named:
            spec |= named[part]
            spec |= {"rows": hf.get_input_embeddings().num_embeddings} if part == "lm" else {}
    projection["dtype"] = _name(linear.weight.dtype)
    return {
        "format": FORMAT,
        "family": str(model.provenance.get("family", "parts")),
        "name": model.name,
        "vision": vision,
        "projection": projection,
        "lm": lm,
        "provenance": placeless({**model.provenance, "sha256": hashes}),
    }


def reference(place: str | tuple[str, str], folder: Path) -> dict[str, str]:
    """The location of a part that is not copied; a folder relative to the bridge's."""
    source, revision = place if isinstance(place, tuple) else (place, None)
    file = str(source).endswith(".gguf") and expanded(source).is_file()
    if file or expanded(source).is_dir():
        return {"folder": Path(os.path.relpath(expanded(source), folder)).as_posix()}
    if expanded(source).is_absolute():
        raise CheckpointError(f"There is no folder or file {str(source)!r} to name as a part.")
    return {"hub": str(source)} | ({"revision": revision} if revision else {})


def one_format(module: nn.Module) -> None:
    """Refuse weights of several dtypes: when read, all get the dtype of the first."""
    kept = {id(tensor) for tensor in stays(module)}
    kinds = {p.dtype for p in module.parameters() if id(p) not in kept}
    if len(kinds) > 1:
        names = " and ".join(sorted(_name(kind) for kind in kinds))
        raise CheckpointError(
            f"The weights of this {type(module).__name__} are in {names}; cast it to one of them"
            " with .to(...) before it is saved."
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def write(model: Any, hf: Any, named: Named, spec: dict[str, Any], new: Path) -> None:
    """All files of a bridge, bridge.json with the hashes of the small ones."""
    if "vision" not in named:
        _save_vision(model.vision, new / "vision")
    if "lm" not in named:
        with quietly():
            hf.save_pretrained(new / "lm")
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(new / "lm")
    save_tensors(model.projection, new / "projection.safetensors")
    small = sorted(p for p in new.rglob("*") if p.is_file() and p.suffix != ".safetensors")
    files = {path.relative_to(new).as_posix(): file_hash(path) for path in small}
    spec = spec | ({"files": files} if files else {})
    (new / "bridge.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")


def _save_vision(vision: HookedVision, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if vision.kind == "hf":
        with quietly():
            vision.module.save_pretrained(folder)
        return
    try:
        with torch.device("meta"):
            again = build(vision.spec())
    except (NotImplementedError, RuntimeError):  # one that computes in its constructor: older timm
        again = build(vision.spec())
    ours = {key: value.shape for key, value in vision.module.state_dict().items()}
    if ours != {key: value.shape for key, value in again.state_dict().items()}:
        raise CheckpointError(
            f"{type(vision.module).__name__} could not be rebuilt from its recorded arch; "
            "wrap it with from_timm(module, name=..., kwargs=...) or with arch=... of its own."
        )
    save_tensors(vision.module, folder / "model.safetensors")
