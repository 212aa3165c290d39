"""Dictionaries from files: `mm.load_dictionary(folder)` reads five formats, `save_dictionary` one.

    cfg.json, sae_weights.safetensors     SAELens (versions 3 to 6), and `save_dictionary`
    config.json, ae.pt                    dictionary_learning
    config.json, one other .pt file       Prisma (vit-prisma): weights.pt, n_images_520028.pt
    a .pt or .safetensors file            overcomplete: a state dict alone

What differs between them is read off their configurations and ends in the same few numbers
(`towers.dictionaries.dictionary`): whether b_dec is subtracted first, norms of decoder rows that
the package folds when it loads, factors by which activations were scaled. A configuration that asks
for anything else is refused. No file is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.dictionaries import (
    dictionary_learning_files,
    overcomplete_files,
    prisma_files,
    saelens_files,
)
from mmlens.checkpoints.weights import expanded, read_state
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.values.arguments import count, instance, number
from mmlens.values.errors import CheckpointError
from mmlens.values.whole_files import replacing_files, write_whole

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
CONFIG, AE = "config.json", "ae.pt"


def load_dictionary(
    folder: str | Path,
    *,
    k: int | None = None,
    threshold: float | None = None,
    scale: float | None = None,
) -> Dictionary:
    """A sparse autoencoder or transcoder from files, in float32.

    Args:
        folder: of the configuration and the weights; of overcomplete the file of a state dict.
        k: for a state dict of a TopKSAE of overcomplete, which does not hold it.
        threshold: for one of a BatchTopKSAE: its running threshold; 0.0 says a plain SAE.
        scale: the factor by which activations were multiplied in training, for a checkpoint that
            says so and does not hold it (`normalize_activations="expected_average_only_in"`); 1.0
            where it was folded into the weights.

    Raises:
        CheckpointError: no such files, or a configuration that is not read.
    """
    k = None if k is None else count(k, "k")
    threshold = None if threshold is None else number(threshold, "threshold")
    if scale is not None and number(scale, "scale") <= 0:
        raise CheckpointError(f"scale={scale} scales nothing: write a number above 0.")
    place = expanded(folder, "folder")
    if place.is_file():
        return overcomplete_files.read(read_state(place), place.name, k, threshold)
    if not place.is_dir():
        raise CheckpointError(f"There is no folder or file {str(folder)!r} to read.")
    if k is not None or threshold is not None:
        raise CheckpointError(
            "k= and threshold= are for a state dict of overcomplete: in a folder the configuration"
            " says what they are."
        )
    if (place / CFG).is_file():
        config, state = _json(place / CFG), read_state(place / WEIGHTS)
        return saelens_files.read(config, state, place.name, scale)
    if (place / AE).is_file():
        return _unscaled(scale, dictionary_learning_files.read)(
            _json(place / CONFIG), read_state(place / AE), place.name
        )
    found = sorted(place.glob("*.pt"))
    if (place / CONFIG).is_file() and len(found) == 1:
        return _unscaled(scale, prisma_files.read)(
            _json(place / CONFIG), read_state(found[0]), place.name
        )
    there = ", ".join(sorted(one.name for one in place.iterdir())[:6]) or "nothing"
    raise CheckpointError(
        f"{str(folder)!r} holds {there}, which is no dictionary: it takes {CFG} with {WEIGHTS}"
        f" (SAELens), {CONFIG} with {AE} (dictionary_learning), or {CONFIG} with one other .pt file"
        " (Prisma)."
    )


def save_dictionary(dictionary: Dictionary, folder: str | Path) -> Path:
    """Write a dictionary as safetensors and JSON, as SAELens 6 reads it; returns the folder.

    Raises:
        CheckpointError: a transcoder of a kind that the format does not have.
        WriteError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    instance(dictionary, "dictionary", Dictionary, "what mm.load_dictionary(folder) returns")
    config, state = saelens_files.written(dictionary)
    place = expanded(folder, "folder")
    with replacing_files(place, last=CFG) as new:
        save_file(state, new / WEIGHTS)
        write_whole(new / CFG, json.dumps(config, indent=1) + "\n")
    return place


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"There is no {path.name} in {path.parent.name!r}.")
    return read_json(path)


def _unscaled(scale: float | None, read: Any) -> Any:
    if scale is not None:
        raise CheckpointError(
            "scale= is for a checkpoint of SAELens whose activations were scaled: in this format"
            " the factor is in the weights, or the configuration says it."
        )
    return read
