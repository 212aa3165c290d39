"""A bridge as a folder: JSON and safetensors, no executable code.

    bridge.json               the parts, preprocessing and provenance (key by key:
                              `checkpoints.bridge_json`), and hashes of the files
    vision/                   the encoder: config.json (transformers) and model.safetensors
    projection.safetensors    the linear map
    lm/                       the language model as transformers writes it, and the tokenizer

    save(model, "my-bridge");  model = load("my-bridge")

The parts are saved in the formats of their own libraries, never as wrapped by TransformerLens, so
each can be used alone. A large part can be left out and named instead: `by_reference={"lm":
"gpt2"}`. The weights are those that the model computes with, in their dtype; no path of this
machine is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.bridge_json import read_spec
from mmlens.checkpoints.folder_read import check_files, check_weights, load_lm_folder, load_vision
from mmlens.checkpoints.folder_write import (
    Named,
    check_saved,
    one_format,
    reference,
    spec_of,
    write,
)
from mmlens.checkpoints.weights import check_projection, expanded, linear_from_state, read_state
from mmlens.model.dictionary_sites import refuse_dictionaries
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.casting import cast, device_of, dtype_of
from mmlens.towers.language.copies import faithful, hugging_face
from mmlens.values.errors import CapabilityError, CheckpointError
from mmlens.values.whole_files import replacing_files


def save(model: Any, folder: str | Path, *, by_reference: Named | None = None) -> Path:
    """Writes a bridge; returns the folder.

    Args:
        model: a HookedVLM without edits, of a Hugging Face LM and a linear projection.
        folder: created if it does not exist; the parts of an earlier bridge in it are replaced when
            all is written.
        by_reference: parts ("vision", "lm") to name, not to copy: a hub id, or (id, revision), or a
            folder, recorded relative to this one.

    Raises:
        CheckpointError: a part can't be written as plain tensors.
        CapabilityError: the model has edits, or weights that were changed in the bridge alone.
        WriteError: the folder cannot be written; its old content is unchanged.
    """
    refuse_dictionaries(model)
    if model.edits:
        raise CapabilityError(
            f"{model.name!r} has {len(model.edits)} edits, which are not weights; save the model "
            "without them and apply model.edit(...) after loading."
        )
    folder, named = expanded(folder, "folder"), dict(by_reference or {})
    check_saved(model)
    hf = faithful(model.lm, hugging_face(model.lm))
    for module in (hf, model.vision.module):
        one_format(module)
    spec = spec_of(model, hf, {part: reference(place, folder) for part, place in named.items()})
    with replacing_files(folder, last="bridge.json") as new:
        write(model, hf, named, spec, new)
    return folder


def describe(model: Any, named: Named | None = None) -> dict[str, Any]:
    """The content of bridge.json, with a hash of each part that is copied."""
    check_saved(model)
    here = Path()
    references = {part: reference(place, here) for part, place in (named or {}).items()}
    return spec_of(model, hugging_face(model.lm), references)


def load(
    folder: str | Path,
    *,
    name: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    fold_ln: bool | None = None,
    verify: bool = True,
) -> Any:
    """A HookedVLM from a folder that `save` wrote.

    Args:
        folder: holds bridge.json.
        name: another name for the model in results.
        dtype: of all parts. None: each part's as it was saved, and float32 where bridge.json has
            none (bf16 and fp16 on disk are cast up).
        device: where to put it.
        fold_ln: as in TransformerLens' `from_pretrained`; None: as it was saved.
        verify: compare every part and file with its hash in bridge.json. Hashing 1 GB takes
            seconds.

    Raises:
        CheckpointError: something is missing, unsafe, changed, of the wrong shape, or from a newer
            mmlens; the error names the file.
    """
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.towers.language.language_model import wrap_lm

    folder, place, asked = expanded(folder), device_of(device), dtype_of(dtype)
    spec = read_spec(folder)
    if verify:
        check_files(spec, folder)
    with ordinary():
        hf, words = load_lm_folder(spec["lm"], folder / "lm")
        vision = load_vision(spec["vision"], folder / "vision")
        projection = _projection(spec["projection"], folder)
        if verify:
            loaded = {"vision": vision.module, "projection": projection, "lm": hf}
            check_weights(spec, loaded, folder.name)
        parts = f"{type(vision.module).__name__} and {type(hf).__name__}"
        positions = vision.grid[0] * vision.grid[1]
        check_projection(projection, vision.d_vision, _d_embed(hf), parts, positions)
        kinds = {
            part: asked or dtype_of(spec[part].get("dtype")) or torch.float32
            for part in ("vision", "lm", "projection")
        }
        kinds |= {} if "dtype" in spec["projection"] else {"projection": kinds["lm"]}
        folded = bool(spec["lm"].get("fold_ln", False))
        fold = folded if fold_ln is None else fold_ln
        if not (fold and folded):  # folding is repeated in the saved dtype, and cast then
            cast(hf, dtype=kinds["lm"])
        lm = wrap_lm(cast(hf, place), words, fold_ln=fold)
        cast(lm.root, dtype=kinds["lm"])
        return HookedVLM(
            cast(vision, lm.device, kinds["vision"]),
            cast(projection, lm.device, kinds["projection"]),
            lm,
            name=name or spec.get("name") or folder.name,
            provenance={"family": spec.get("family", "parts"), **(spec.get("provenance") or {})},
            prepend_bos=bool(spec["lm"].get("prepend_bos", False)),
        )


def _projection(spec: Mapping[str, Any], folder: Path) -> nn.Linear:
    """The linear map, checked against bridge.json."""
    where = f"projection.safetensors of {folder.name!r}"
    state = read_state(folder / "projection.safetensors")
    linear = linear_from_state(state, where)
    sides = (linear.in_features, linear.out_features)
    said = (spec.get("d_in", sides[0]), spec.get("d_out", sides[1]))
    if said != sides:
        raise CheckpointError(
            f"{where} leads {sides[0]} -> {sides[1]}, and bridge.json says {said[0]} -> {said[1]}."
        )
    biased = linear.bias is not None
    if spec.get("bias", biased) != biased:
        raise CheckpointError(
            f"{where} has {'a' if biased else 'no'} bias, and bridge.json says otherwise."
        )
    return linear


def _d_embed(hf: Any) -> int:
    """The size of what `inputs_embeds` receives; OPT-350m's is not its hidden size."""
    return int(hf.get_input_embeddings().weight.shape[-1])
