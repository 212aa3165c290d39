"""What a sweep asked of what: its manifest, and the refusal to go on with something else.

Question (by its name and a hash of its code without comments), options, model (provenance, weights,
edits, number format), data (content hash) and versions. Times and places are left out, so that the
manifest of two equal sweeps is equal.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmlens.checkpoints import weights_hash
from mmlens.datasets.sample import Samples
from mmlens.errors import MMLensError
from mmlens.provenance import about
from mmlens.scores import Scores

if TYPE_CHECKING:
    from mmlens.model import HookedVLM

FORMAT = 1


class SweepError(MMLensError, RuntimeError):
    """A sweep cannot be begun or gone on with, or a sample of it failed."""


def record(
    question: Callable[..., Any],
    model: HookedVLM,
    samples: Samples,
    options: Mapping[str, Any],
    **plan: Any,
) -> dict[str, Any]:
    """The manifest of a sweep, as JSON reads it back.

    Args:
        options: of the question.
        plan: of the sweep itself (chunk, seed, tallies).

    Raises:
        SweepError: the question is not a function of a module, or an option is not plain.
    """
    told = about(model)
    versions = {**told.pop("versions"), "pyarrow": version("pyarrow")}
    asked = {
        "format": FORMAT,
        "question": _named(question),
        "options": {name: _plain(name, value) for name, value in options.items()},
        "model": {**told, **_weights(model)},
        "data": {"name": samples.name, "samples": len(samples), "hash": samples.hash},
        **plan,
        "versions": versions,
    }
    return json.loads(json.dumps(asked, default=str))


def check(folder: Path, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a folder whose sweep was asked otherwise.

    Raises:
        SweepError: names the first thing that differs.
    """
    before, now = _flat(kept), _flat(asked)
    for name in (*now, *before):
        if name != "data.name" and before.get(name) != now.get(name):
            raise SweepError(
                f"{str(folder)!r} holds a sweep with {name} = {_short(before.get(name))}, and this"
                f" one asks for {_short(now.get(name))}: ask for the same to go on, give another"
                " folder, or begin anew with resume=False."
            )


def _named(question: Callable[..., Any]) -> dict[str, str]:
    """Module and name of a function that another process would find there, and its code's hash."""
    module, name = getattr(question, "__module__", ""), getattr(question, "__qualname__", "")
    found: Any = sys.modules.get(str(module))
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if not name or found is not question:
        raise SweepError(
            f"{name or question!r} cannot be recorded as a question: define it with `def` at the"
            " top of a module or notebook, and give what varies as options={...}."
        )
    return {"name": f"{module}.{name}", "code": _code(question)}


def _code(function: Callable[..., Any]) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return "unknown"
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _plain(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        raise SweepError(
            f"The option {name}={value!r} cannot be recorded: give numbers, words, lists or dicts"
            " (a neuron as str(neuron))."
        ) from None


def _weights(model: HookedVLM) -> dict[str, Any]:
    parts = {
        "vision": getattr(model.vision, "module", None),
        "projection": model.projection,
        "lm": model.root,
    }
    hashes = {
        name: weights_hash(part.state_dict()) for name, part in parts.items() if part is not None
    }
    changes = [_value(edit.value) for edit in model.edits]
    dtype, kind = str(model.lm.dtype).removeprefix("torch."), model.lm.device.type
    return {"weights": hashes, "edit_values": changes, "dtype": dtype, "device": kind}


def _value(value: Any) -> Any:
    """What an edit writes: a number, or the hash of a tensor or of a function's code."""
    if isinstance(value, Scores):
        return _value(value.values)
    if isinstance(value, torch.Tensor):
        return weights_hash({"value": value})
    return _code(value) if callable(value) else value


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    out: dict[str, Any] = {}
    for name, part in tree.items():
        out |= _flat(part, f"{path}.{name}" if path else str(name))
    return out


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:12]}...{text[-1]}"
