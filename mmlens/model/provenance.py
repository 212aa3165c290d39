"""Where a number comes from: model, weights, edits, options, versions, kept with every result."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmlens.values.crops import CROPS, packed
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.scores import Scores
from mmlens.values.written import written

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


def about(model: HookedModel, **options: Any) -> dict[str, Any]:
    """The provenance of a result: JSON-able, `options` first."""
    from mmlens import __version__

    return {
        **{name: _plain(option) for name, option in options.items()},
        **_crops(model, options),
        "model": model.name,
        **{f"model_{key}": value for key, value in model.provenance.items()},
        "edits": [_edit(edit) for edit in model.edits],
        "versions": {
            "mmlens": __version__,
            **{name: _version(name) for name in ("transformer-lens", "torch", "transformers")},
        },
    }


def _edit(edit: Any) -> str:
    """An edit as it prints and, of tensors that it writes or computes with, which these are."""
    held = (edit.value, *getattr(edit.value, "args", ()),
            *getattr(edit.value, "keywords", {}).values())  # fmt: skip
    tensors = [one.values if isinstance(one, Scores) else one for one in held]
    data = [one.detach().to("cpu").float().contiguous().numpy().tobytes()
            for one in tensors if isinstance(one, Tensor)]  # fmt: skip
    return f"{edit!r} sha256:{_hash(b''.join(data))}" if data else repr(edit)


def _crops(model: HookedModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Where the crops of the prompt's pictures lie, of a model that reads them so."""
    reader: Any = getattr(model, "image_reader", None)
    softs = [one for one in options.values() if isinstance(one, SoftPrompt)]
    if not softs or len(softs[0].prompts) != 1 or not hasattr(reader, "layout"):
        return {}
    pictures, vision = softs[0].prompts[0].pictures, model.towers["vision"]
    layouts = [reader.layout(vision, *one.size, len(pictures)) for one in pictures]
    both = zip(pictures, layouts, strict=True)
    return {CROPS: [packed(one.size, laid.crops) for one, laid in both]} if pictures else {}


def described(prompt: Prompt) -> list[str]:
    """The parts of a prompt: words as they are, pictures by size and hash of their pixels.

    Of a chat also its system text, and where turns end; and that a prompt is read as it is.
    """
    told = [f"<system {prompt.system}>"] if prompt.system else []
    told += [] if prompt.template else ["<no template>"]
    for at, turn in enumerate(prompt.turns):
        told += ["<turn>"] if at else []
        told += [_part(part) for part in turn]
    return told


def prompts_told(soft: SoftPrompt) -> str:
    """The prompts of a soft prompt in displays: one as itself, several as a list."""
    if not soft.prompts:
        return f"<{len(soft)} x {soft.ids.shape[1]} positions>"
    return repr(soft.prompts[0]) if len(soft.prompts) == 1 else repr(list(soft.prompts))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    return f"<picture {part.width}x{part.height} sha256:{_hash(part.tobytes())}>"


_version = lru_cache(version)  # reading a package's metadata takes milliseconds


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _plain(option: Any) -> Any:
    if isinstance(option, SoftPrompt):
        pos = "".join(str(label) if hasattr(label, "text") else "" for label in option.labels[0])
        return {"parts": [described(p) for p in option.prompts], "words": pos}
    if isinstance(option, Mapping):
        return {str(name): _plain(value) for name, value in option.items()}
    if inspect.isroutine(option) or isinstance(option, partial):
        return written(option)
    return option if isinstance(option, (int, float, bool)) else str(option)
