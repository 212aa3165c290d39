"""Vision encoders by name, folder or object: transformers, open_clip and timm.

    find_vision("open_clip:ViT-B-32/openai")
    find_vision("timm:vit_base_patch16_224")
    find_vision("hf:google/vit-base-patch16-224")     # or the bare id, a folder, a module

Only names of remote models use the network.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.llava_parts import refuse_whole
from mmlens.checkpoints.weights import SPARE, expanded, loaded_whole, quietly
from mmlens.runtime.casting import dtype_of
from mmlens.towers.vision.wrap import HookedVision, wrap_vision
from mmlens.values.errors import CheckpointError, ModelError, nearest, reason
from mmlens.values.hub_errors import unfound
from mmlens.values.optional_packages import package

_VISION_CLASSES = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
_KNOWN_VISION = [
    "google/vit-base-patch16-224",
    "microsoft/beit-large-patch16-224-pt22k",
    "openai/clip-vit-base-patch32",
    "google/siglip-base-patch16-224",
    "facebook/dinov2-base",
    "facebook/deit-base-patch16-224",
    "open_clip:ViT-B-32/openai",
    "timm:vit_base_patch16_224",
]


def find_vision(
    source: Any, *, dtype: torch.dtype | str | None = None, revision: str | None = None
) -> HookedVision:
    """A HookedVision from a module, a folder or a name (see `from_parts`)."""
    kind = dtype_of(dtype)
    if isinstance(source, HookedVision):
        other = kind is not None and kind != source.dtype
        vision = source.at(source.feature_layer) if other else source  # the caller's is not changed
    elif not isinstance(source, (str, Path)):
        refuse_whole(source)
        vision = wrap_vision(source)
    elif expanded(source).is_dir():
        vision = _hf_vision(str(expanded(source)), None, local=True)
    else:
        library, _, rest = str(source).partition(":")
        if library == "open_clip" and rest:
            vision = _open_clip(rest)
        elif library == "timm" and rest:
            vision = _timm(rest)
        elif library in ("open_clip", "timm") or (rest and library != "hf"):
            hint = nearest(str(source), _KNOWN_VISION)
            raise ModelError(f"There is no encoder {str(source)!r}: {hint}")
        else:
            vision = _hf_vision(rest or library, revision, local=False)
    return vision.to(kind) if kind is not None else vision


def _hf_vision(source: str, revision: str | None, *, local: bool) -> HookedVision:
    import transformers

    options: dict[str, Any] = {"revision": revision, "local_files_only": local}
    safe: Any = {**options, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **safe)
        fallback = transformers.AutoModel
        named = _VISION_CLASSES.get(config.model_type, "")
        if config.model_type == "perceiver":  # whose body alone doesn't know how it reads pixels
            named = next(iter(config.architectures or ()), "")
        cls = getattr(transformers, named, fallback)
        with quietly():
            module, told = cls.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **safe
            )
    except Exception as error:  # transformers and the hub raise many exception types
        raise unfound("encoder", source, error, _KNOWN_VISION) from error
    refuse_whole(module)
    loaded_whole(told, repr(source), SPARE)
    return wrap_vision(module, processor_settings(source, options))


def processor_settings(source: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """The settings as a dict: unlike the processor classes, this does not need torchvision."""
    from transformers.utils.hub import cached_file

    missing = {"_raise_exceptions_for_missing_entries": False}
    missing |= {"_raise_exceptions_for_connection_errors": False}
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(source, name, **options, **missing)
        try:
            read = read_json(Path(path)) if path else {}
            settings = read if name.startswith("pre") else read.get("image_processor")
            if settings:
                return dict(settings)
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{name} of {source!r} does not hold the settings of an image processor: {error}"
            ) from error
    return None


def _open_clip(rest: str) -> HookedVision:
    return wrap_vision(open_clip_model(rest))


def open_clip_model(rest: str) -> tuple[Any, Any]:
    """A model of open_clip and its evaluation transform, from "MODEL/WEIGHTS".

    Args:
        rest: weights are a tag of open_clip's list or a file; without any they are random.

    Raises:
        ModelError: no such model or weights, or they can't be fetched.
    """
    open_clip = package("open_clip", "vision")
    model, _, weights = rest.partition("/")
    if model not in open_clip.list_models():
        hint = nearest(model, open_clip.list_models())
        raise ModelError(f"open_clip has no model {model!r}: {hint}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights and weights not in tags and not Path(weights).is_file():
        raise ModelError(
            f"open_clip has no weights {weights!r} for {model}: {nearest(weights, tags)}"
        )
    quick = _trained_with_quick_gelu(open_clip, model, weights)
    with fetching("open_clip", rest):
        weights = _in_own_cache(open_clip, model, weights) or weights
        script = _is_script(weights)
        made = open_clip.create_model_and_transforms(
            model, pretrained=None if script else weights or None, force_quick_gelu=quick or script
        )
        if script:
            state = torch.jit.load(weights, map_location="cpu").state_dict()
            made[0].load_state_dict({k: v for k, v in state.items() if k not in _NO_WEIGHTS})
    return made[0], made[2]


_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def _in_own_cache(open_clip: Any, model: str, weights: str) -> str:
    """The file of these weights in ~/.cache/clip, its hash checked; "" where there is none.

    OpenAI's package and older open_clips keep it there; open_clip 3 asks the hub's cache alone.
    """
    tag = open_clip.pretrained.get_pretrained_cfg(model, weights) if weights else {}
    url = (tag or {}).get("url") or ""
    there = url and Path("~/.cache/clip", url.rpartition("/")[2]).expanduser().is_file()
    return open_clip.pretrained.download_pretrained_from_url(url) if there else ""


def _is_script(weights: str) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's CLIPs (with QuickGELU) are."""
    if not (Path(weights).is_file() and zipfile.is_zipfile(weights)):
        return False
    with zipfile.ZipFile(weights) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@contextmanager
def fetching(library: str, name: str) -> Iterator[None]:
    """A context in which a library loads weights; its exceptions become a ModelError."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{library} could not load {name!r}: {reason(error)}") from error


def _trained_with_quick_gelu(open_clip: Any, model: str, weights: str) -> bool:
    """Whether the weights need QuickGELU; open_clip only warns if the model does not have it."""
    tag = open_clip.pretrained.get_pretrained_cfg(model, weights) if weights else {}
    built = bool((open_clip.get_model_config(model) or {}).get("quick_gelu"))
    if tag and built and not tag.get("quick_gelu"):
        other = model.removesuffix("-quickgelu")
        hint = f"'open_clip:{other}/{weights}'" if other != model else "other weights"
        raise ModelError(
            f"The weights {weights!r} were not trained with QuickGELU, which {model} is made with:"
            f" write {hint}."
        )
    return bool(tag.get("quick_gelu"))


def _timm(rest: str) -> HookedVision:
    timm = package("timm", "vision")
    if not timm.is_model(rest.split(".")[0]):
        raise ModelError(f"timm has no model {rest!r}: {nearest(rest, timm.list_models())}")
    known = timm.list_pretrained(f"{rest.split('.')[0]}.*")
    if "." in rest and rest not in known:
        raise ModelError(f"timm has no weights {rest!r}: {nearest(rest, known)}")
    with fetching("timm", rest):
        module = timm.create_model(rest, pretrained=True)
    return wrap_vision(module, timm.data.resolve_model_data_config(module), name=rest)
