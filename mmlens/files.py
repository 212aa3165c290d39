"""A bridge as a folder: JSON and safetensors, nothing that can run.

    bridge.json               what the parts are, how pictures are prepared, where all comes from
    vision/                   the encoder: config.json (transformers) and model.safetensors
    projection.safetensors    the linear map
    lm/                       the language model as transformers writes it, and the tokenizer

    save(model, "my-bridge");  model = load("my-bridge")

The parts are saved as their own libraries know them, never as wrapped by TransformerLens, so each
can be used alone. A large part can be left out and named instead: `by_reference={"lm": "gpt2"}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints import (
    check_projection,
    linear_from_state,
    quietly,
    read_state,
    weights_hash,
)
from mmlens.errors import CapabilityError, CheckpointError
from mmlens.files_read import FORMAT, load_lm_folder, load_vision, read_spec
from mmlens.hub import pull_projection as pull_projection
from mmlens.hub import push_projection as push_projection
from mmlens.vision import HookedVision, build
from mmlens.writing import replacing_files


def save(
    model: Any,
    folder: str | Path,
    *,
    by_reference: Mapping[str, str | tuple[str, str]] | None = None,
) -> Path:
    """Writes a bridge; returns the folder.

    Args:
        model: a HookedVLM without edits, of a Hugging Face LM and a linear projection.
        folder: made if it isn't there; files of an earlier bridge in it are replaced.
        by_reference: parts ("vision", "lm") to name, not to copy: a hub id, or (id, revision).

    Raises:
        CheckpointError: a part can't be written as plain tensors.
        WriteError: the folder cannot be written; what it held is as it was.
    """
    if model.edits:
        raise CapabilityError(
            f"{model.name!r} has {len(model.edits)} edits, which are not weights; save the model "
            "without them and apply model.edit(...) after loading."
        )
    folder, named = Path(folder), dict(by_reference or {})
    spec = describe(model, named)
    with replacing_files(folder, last="bridge.json") as new:
        if "vision" not in named:
            _save_vision(model.vision, new / "vision")
        if "lm" not in named:
            with quietly():
                model.lm.hf.save_pretrained(new / "lm")
            if model.tokenizer is not None:
                model.tokenizer.save_pretrained(new / "lm")
        _save_tensors(model.projection, new / "projection.safetensors")
        (new / "bridge.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    return folder


def describe(
    model: Any, named: Mapping[str, str | tuple[str, str]] | None = None
) -> dict[str, Any]:
    """The content of bridge.json, with a hash of each part that is copied."""
    named = named or {}
    if model.lm.hf is None:
        raise CheckpointError(
            f"{model.name!r} is made of a TransformerLens model, which cannot be saved; build it "
            "with wrap_lm(hugging_face_model) instead."
        )
    if model.vision is None or not isinstance(model.projection, nn.Linear):
        kind = type(model.projection).__name__
        raise CheckpointError(
            f"Only a bridge with an encoder and one nn.Linear can be saved, not with a {kind}."
        )
    parts = {"vision": model.vision.module, "projection": model.projection, "lm": model.lm.hf}
    hashes = {
        part: weights_hash(module.state_dict())
        for part, module in parts.items()
        if part not in named
    }
    lm: dict[str, Any] = {"class": type(model.lm.hf).__name__}
    lm |= {"prepend_bos": True} if getattr(model, "prepend_bos", False) else {}
    vision = model.vision.spec()
    for part, spec in (("vision", vision), ("lm", lm)):
        if part in named:
            id_, revision = named[part] if isinstance(named[part], tuple) else (named[part], None)
            spec |= {"hub": id_} | ({"revision": revision} if revision else {})
            spec |= {"rows": model.lm.hf.config.vocab_size} if part == "lm" else {}
    linear = model.projection
    projection = {"kind": "linear", "d_in": linear.in_features, "d_out": linear.out_features}
    return {
        "format": FORMAT,
        "family": str(model.provenance.get("family", "parts")),
        "name": model.name,
        "vision": vision,
        "projection": projection,
        "lm": lm,
        "provenance": {**model.provenance, "sha256": hashes},
    }


def load(
    folder: str | Path,
    *,
    name: str | None = None,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device | None = None,
    fold_ln: bool = False,
    verify: bool = False,
) -> Any:
    """A HookedVLM from a folder that `save` wrote.

    Args:
        folder: holds bridge.json.
        name: another name for the model in results.
        dtype: of all parts; bf16 and fp16 on disk are cast up to float32 unless another is asked
            for. None keeps what is on the disk.
        device: where to put it.
        fold_ln: as in TransformerLens' `from_pretrained`.
        verify: compare every part with the hash in bridge.json.

    Raises:
        CheckpointError: something is missing, unsafe, of the wrong shape, or from a newer mmlens.
    """
    from mmlens.lm import wrap_lm
    from mmlens.model import HookedVLM

    folder = Path(folder)
    spec = read_spec(folder)
    vision = load_vision(spec["vision"], folder / "vision", dtype)
    hf, words = load_lm_folder(spec["lm"], folder / "lm", dtype)
    state = read_state(folder / "projection.safetensors")
    projection = linear_from_state(state, f"projection.safetensors of {folder.name!r}")
    parts = f"{spec['vision'].get('class', 'the encoder')} and {type(hf).__name__}"
    check_projection(projection, vision.d_vision, _d_embed(hf), parts)
    if verify:
        loaded = {"vision": vision.module, "projection": projection, "lm": hf}
        for part, known in spec.get("provenance", {}).get("sha256", {}).items():
            if weights_hash(loaded[part].state_dict()) != known:
                raise CheckpointError(f"The weights of {part} in {folder.name!r} were changed.")
    hf = hf.to(device) if device is not None else hf
    projection = projection.to(hf.device, hf.dtype)
    return HookedVLM(
        vision.to(hf.device),
        projection,
        wrap_lm(hf, words, fold_ln=fold_ln),
        name=name or spec.get("name") or folder.name,
        provenance={"family": spec.get("family", "parts"), **spec.get("provenance", {})},
        prepend_bos=bool(spec["lm"].get("prepend_bos", False)),
    )


def _save_vision(vision: HookedVision, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if vision.kind == "hf":
        with quietly():
            vision.module.save_pretrained(folder)
        return
    with torch.device("meta"):
        again = build(vision.spec())
    ours = {key: value.shape for key, value in vision.module.state_dict().items()}
    if ours != {key: value.shape for key, value in again.state_dict().items()}:
        raise CheckpointError(
            f"{type(vision.module).__name__} could not be built again from what is known of it; "
            "wrap it with from_timm(module, name=..., kwargs=...) or with arch=... of its own."
        )
    _save_tensors(vision.module, folder / "model.safetensors")


def _save_tensors(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().clone() for k, v in module.state_dict().items()}, path)


def _d_embed(hf: Any) -> int:
    """The size of what `inputs_embeds` receives; OPT-350m's is not its hidden size."""
    return int(hf.get_input_embeddings().weight.shape[-1])
