"""Dual encoders by name or folder: open_clip's, and those of transformers.

    find_dual("open_clip:ViT-B-32/openai")              # a tag of open_clip's list
    find_dual("open_clip:RN50x4//data/RN50x4.pt")       # an architecture and a file of weights
    find_dual("openai/clip-vit-base-patch32")           # a hub id, or a folder of transformers
    find_dual("my-clip")                                # a folder with open_clip_config.json

Only names of remote models use the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.language import load_tokenizer
from mmlens.checkpoints.vision import fetching, open_clip_model, processor_settings
from mmlens.checkpoints.weights import expanded, loaded_whole, quietly
from mmlens.towers.dual_halves import is_dual
from mmlens.values.errors import CapabilityError, CheckpointError, ModelError, nearest
from mmlens.values.hub_errors import unfound
from mmlens.values.optional_packages import package

OPEN_CLIP = "open_clip:"
KINDS = ("clip", "siglip", "siglip2", "metaclip_2", "altclip", "chinese_clip", "flava")
"""The model types of transformers that are dual encoders here."""
KNOWN = [
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-large-patch14",
    "google/siglip-base-patch16-224",
    "google/siglip2-base-patch16-224",
    "facebook/metaclip-2-worldwide-huge-quickgelu",
    "BAAI/AltCLIP",
    "OFA-Sys/chinese-clip-vit-base-patch16",
    "facebook/flava-full",
]


def names_dual(name: str) -> bool:
    """Whether this is open_clip's name of a dual encoder, or a folder of one."""
    folder = expanded(name)
    if folder.is_dir():
        return (folder / "open_clip_config.json").is_file() or _kind(folder) in KINDS
    return name.startswith(OPEN_CLIP)


def find_dual(
    source: str, revision: str | None = None, *, heads: bool = False
) -> tuple[Any, Any, Any, Any]:
    """(model, its preprocessing, its tokenizer, open_clip's configuration of it or None).

    Args:
        heads: whether a FLAVA is loaded with the heads that it was trained with.

    Raises:
        ModelError: a name that doesn't exist or can't be fetched; the error names the nearest.
        CheckpointError: a folder that holds no whole dual encoder.
    """
    folder = expanded(source)
    if source.startswith(OPEN_CLIP):
        return _open_clip(source.removeprefix(OPEN_CLIP))
    if (folder / "open_clip_config.json").is_file():
        return _open_clip_folder(folder)
    return *_transformers(source, revision, heads, local=folder.is_dir()), None


def _kind(folder: Path) -> str:
    """The model type in a folder's config.json."""
    try:
        return str(read_json(folder / "config.json").get("model_type"))
    except (CheckpointError, AttributeError):
        return ""


def open_clip_arch(arch: Any) -> Any:
    """open_clip's configuration of an architecture by name; a dict as it is.

    Raises:
        ModelError: open_clip has no architecture of that name.
    """
    if not isinstance(arch, str):
        return arch
    open_clip = package("open_clip", "vision")
    if arch not in open_clip.list_models():
        hint = nearest(arch, open_clip.list_models())
        raise ModelError(f"open_clip has no model {arch!r}: {hint}")
    return open_clip.get_model_config(arch)


def _open_clip(rest: str) -> tuple[Any, Any, Any, Any]:
    open_clip = package("open_clip", "vision")
    arch, _, weights = rest.partition("/")
    if arch in open_clip.list_models() and not weights:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ModelError(
            f"'open_clip:{arch}' names no weights: write 'open_clip:{arch}/{(tags or ['FILE'])[0]}'"
            f" ({nearest('', tags)}) or a file."
        )
    model, preprocess = open_clip_model(rest)
    with fetching("open_clip", f"the tokenizer of {arch}"):
        return model, preprocess, open_clip.get_tokenizer(arch), open_clip_arch(arch)


def _open_clip_folder(folder: Path) -> tuple[Any, Any, Any, Any]:
    open_clip = package("open_clip", "vision")
    place = f"local-dir:{folder}"
    try:
        made = open_clip.create_model_and_transforms(place)
        config = read_json(folder / "open_clip_config.json")["model_cfg"]
        return made[0], made[2], open_clip.get_tokenizer(place), config
    except Exception as error:  # open_clip raises many types
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"The folder {folder.name!r} holds no open_clip model that can be loaded: {why}"
        ) from error


def _transformers(
    source: str, revision: str | None, heads: bool, *, local: bool
) -> tuple[Any, Any, Any]:
    import transformers

    name = str(expanded(source)) if local else source.removeprefix("hf:")
    options: dict[str, Any] = {"revision": revision, "local_files_only": local}
    safe: Any = {**options, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **safe)
        if config.model_type not in KINDS:
            raise CapabilityError(
                f"{source!r} is a {config.model_type}, no dual encoder ({', '.join(KINDS)}): join"
                f" it with a language model, mm.from_parts(vision={source!r}, lm='gpt2')."
            )
        kind: Any = transformers.AutoModel
        own: dict[str, Any] = {}
        if heads and config.model_type == "flava":
            config.init_codebook = False  # of codes of pictures, which nothing here predicts
            kind, own = transformers.FlavaForPreTraining, {"config": config}
        with quietly():
            model, told = kind.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **own, **safe
            )
    except CapabilityError:
        raise
    except Exception as error:  # transformers and the hub raise many exception types
        raise unfound("dual encoder", source, error, KNOWN) from error
    loaded_whole(told, repr(source))
    if not is_dual(model):
        raise CapabilityError(
            f"{source!r} holds a {type(model).__name__}, which is only a half of a dual encoder."
        )
    return model, processor_settings(name, options), load_tokenizer(name, revision)
