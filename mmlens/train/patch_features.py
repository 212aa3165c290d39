"""Patch vectors of pictures, computed once by a frozen encoder and kept on disk.

    folder/<key>.safetensors      "0", "1", ...: Float[token, d_vision] of some pictures

Pictures may be of several sizes and be read in several crops, whose patches stand one behind the
other; `cache_features` of captioned pictures, of one grid, is for large data. The key is a hash of
the encoder's weights and of the pixels of these pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mmlens.checkpoints.weights import weights_hash
from mmlens.methods.activations import activations
from mmlens.runtime.progress import Progress, bar
from mmlens.values.errors import writing
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

CHUNK = 64
"""Pictures in a file: so many are computed again after a stop."""


def patch_features(
    model: HookedVLM,
    pictures: Sequence[Any],
    folder: Path,
    *,
    progress: Progress | bool | None = None,
) -> list[Float[Tensor, "token d_vision"]]:
    """The features of each picture, on the CPU; what is in the folder is not computed again."""
    from safetensors.torch import load_file, save

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    encoder = weights_hash(model.towers["vision"].module.state_dict())
    found: list[Tensor] = []
    with bar("features of the encoder", len(pictures), progress) as shown:
        for start in range(0, len(pictures), CHUNK):
            some = [open_picture(one) for one in pictures[start : start + CHUNK]]
            file = folder / f"{_key(encoder, some)}.safetensors"
            if file.is_file():
                kept = load_file(file)
                found += [kept[str(at)] for at in range(len(some))]
            else:
                made = [features_of(model, one) for one in some]
                found += made
                write_whole(file, save({str(at): one for at, one in enumerate(made)}))
            shown(len(found))
    return found


def features_of(model: HookedVLM, picture: Any) -> Float[Tensor, "token d_vision"]:
    """The features of one picture, of all its crops."""
    values = activations(model, Prompt(picture), "features").values
    return values.detach().reshape(-1, values.shape[-1]).float().cpu().contiguous()


def pixels_hash(pictures: Sequence[Any]) -> str:
    """sha256 over the pixels of pictures, in their order."""
    digest = hashlib.sha256()
    for one in pictures:
        array = np.asarray(open_picture(one).convert("RGB"))
        digest.update(f"{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _key(encoder: str, pictures: Sequence[Any]) -> str:
    return hashlib.sha256(f"{encoder} {pixels_hash(pictures)}".encode()).hexdigest()[:24]
