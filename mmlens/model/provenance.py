"""Where a number comes from: model, weights, edits, options, versions, kept with every result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mmlens.values.prompt import Prompt, SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


def about(model: HookedModel, **options: Any) -> dict[str, Any]:
    """The provenance of a result: JSON-able, `options` first."""
    from mmlens import __version__

    return {
        **{name: _plain(option) for name, option in options.items()},
        "model": model.name,
        **{f"model_{key}": value for key, value in model.provenance.items()},
        "edits": [repr(edit) for edit in model.edits],
        "versions": {
            "mmlens": __version__,
            **{name: _version(name) for name in ("transformer-lens", "torch", "transformers")},
        },
    }


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
    return option if isinstance(option, (int, float, bool)) else str(option)
