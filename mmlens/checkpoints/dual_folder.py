"""A dual encoder as a folder, in the format of its own library, which can read it without mmlens.

    open_clip_config.json, open_clip_model.safetensors      open_clip (`local-dir:FOLDER`)
    config.json, model.safetensors                          transformers (`from_pretrained`)
    tokenizer files                                         where the tokenizer is transformers'
    dual.json                                               name, pixels, provenance, weights' hash

A tokenizer that is a function of the caller's own is not saved: the loaded model reads token ids.

`mmlens.load(folder)` compares the weights with their hash in dual.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.weights import expanded, quietly, weights_hash
from mmlens.model.dictionary_sites import refuse_dictionaries
from mmlens.values.errors import CapabilityError, CheckpointError
from mmlens.values.placeless import placeless
from mmlens.values.whole_files import replacing_files

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder

FILE, FORMAT = "dual.json", 1


def save_dual(model: HookedDualEncoder, folder: str | Path) -> Path:
    """Writes a dual encoder; returns the folder.

    Raises:
        CapabilityError: it has edits, which are no weights.
        CheckpointError: nothing says how open_clip builds it again, or parts of it are in neither
            half (CoCa's decoder, FLAVA's multimodal encoder).
    """
    refuse_dictionaries(model)
    if model.edits:
        raise CapabilityError(
            f"{model.name!r} has {len(model.edits)} edits, which are not weights; save the model"
            " without them and apply model.edit(...) after loading."
        )
    state = _state(model)
    told = {
        "format": FORMAT,
        "name": model.name,
        "pixels": model.vision.pixels.to_dict(),
        "tokenizer": _tokenizer(model),
        "provenance": placeless({**model.provenance, "sha256": weights_hash(state)}),
    }
    with replacing_files(expanded(folder, "folder"), last=FILE) as new:
        if hasattr(model.text.module, "get_text_features"):
            _save_transformers(model, state, new)
        else:
            _save_open_clip(model, state, new)
        words: Any = model.text.tokens.inner
        if hasattr(words, "save_pretrained"):
            words.save_pretrained(new)
        (new / FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return expanded(folder)


def check_saved_weights(model: Any, told: Mapping[str, Any], name: str) -> None:
    """Compare the weights of a dual encoder as it was read with their hash in dual.json.

    Raises:
        CheckpointError: a weight was changed.
    """
    known = (told.get("provenance") or {}).get("sha256")
    if known is not None and weights_hash(_state(model)) != known:
        raise CheckpointError(
            f"The weights in {name!r} were changed since it was saved; if that is meant, remove"
            f" sha256 from its {FILE}."
        )


def told_of(folder: Path) -> dict[str, Any]:
    """What dual.json says, or nothing where another library wrote the folder.

    Raises:
        CheckpointError: it can't be read, or is from a newer mmlens.
    """
    if not (folder / FILE).is_file():
        return {}
    told = read_json(folder / FILE)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CheckpointError(
            f"{FILE} of {folder.name!r} has another format than {FORMAT}, which this mmlens reads."
        )
    return told


def _tokenizer(model: HookedDualEncoder) -> str:
    """What reads the tokenizer again: a library, or "" for none that can be saved."""
    tokens = model.text.tokens
    if tokens.of_transformers:
        return "transformers"
    of_open_clip = type(tokens.tokenizer).__module__.startswith("open_clip")
    own = getattr(tokens.tokenizer, "vocab_size", None) == 49408
    return "open_clip" if of_open_clip and (own or tokens.inner is not tokens.tokenizer) else ""


def _state(model: HookedDualEncoder) -> dict[str, Tensor]:
    """All tensors under the names that the library's whole model has for them."""
    whole: Any = model.vision.whole
    half: Any = model.text.module
    if hasattr(half, "get_text_features"):
        return {**whole.state_dict(), **half.state_dict()}
    text = "" if hasattr(half, "encode_text") else "text."
    state = {f"visual.{key}": value for key, value in whole.state_dict().items()}
    state |= {f"{text}{key}": value for key, value in half.state_dict().items()}
    return state | dict(model.rest)


def _check_whole(model: HookedDualEncoder, state: Mapping[str, Tensor], library: str) -> None:
    missing = [key for key in model.beside if key not in state]
    if missing:
        raise CheckpointError(
            f"{model.name!r} is the contrastive part of its model alone, without {missing[0]} and"
            f" {len(missing) - 1} other tensors, so {library} could not load it from a folder."
        )


def _save_transformers(model: HookedDualEncoder, state: dict[str, Tensor], new: Path) -> None:
    _check_whole(model, state, "transformers")
    whole: Any = model.vision.whole
    again = type(whole)(whole.config)
    again.load_state_dict(state)
    with quietly():
        again.to(model.vision.dtype).save_pretrained(new)


def _save_open_clip(model: HookedDualEncoder, state: dict[str, Tensor], new: Path) -> None:
    from safetensors.torch import save_file

    if model.arch is None:
        raise CheckpointError(
            f"Nothing says how open_clip builds {model.name!r} again: write mm.from_model(...,"
            " arch='RN50x4'), or arch= the dict of its configuration."
        )
    _check_whole(model, state, "open_clip")
    pixels = model.vision.pixels
    preprocess = {"size": list(pixels.size), "mean": list(pixels.mean), "std": list(pixels.std)}
    preprocess |= {"interpolation": pixels.interpolation, "resize_mode": pixels.resize}
    config = {"model_cfg": dict(model.arch), "preprocess_cfg": preprocess}
    (new / "open_clip_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    plain = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    save_file(plain, new / "open_clip_model.safetensors")
