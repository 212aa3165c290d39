"""The manifest of a sweep, and the refusal to resume a different one.

It records the question (its name, and a hash of its code and of what that reads), options, model
(provenance, weights, edits, hooks, preprocessing, dtype), data (content hash) and versions. Times
and paths are left out, so that equal sweeps have equal manifests.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.checkpoints.weights import weights_hash
from mmlens.datasets.sample import Samples
from mmlens.model.provenance import about
from mmlens.sweep.identity import Identity
from mmlens.towers.dictionaries.hosting import dictionaries_of
from mmlens.values.arguments import shown
from mmlens.values.errors import MMLensError
from mmlens.values.labels import LM
from mmlens.values.written import accepts

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

FORMAT = 2


class SweepError(MMLensError, RuntimeError):
    """A sweep cannot be started or resumed, or a sample of it failed."""


def record(
    question: Callable[..., Any],
    model: HookedModel,
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
    if callable(question) and not accepts(question, 2, options):
        raise SweepError(
            f"{shown(question)} is asked with a model, a sample and the options"
            f" {', '.join(options) or 'none'}, which it does not take: give options={{...}} that it"
            " has, all of them that have no default."
        )
    told, found = about(model), Identity()
    versions = {**told.pop("versions"), "pyarrow": version("pyarrow")}
    versions |= {"python": ".".join(platform.python_version_tuple()[:2])}
    asked = {
        "format": FORMAT,
        "question": _named(question, found),
        "options": {name: _plain(name, value) for name, value in options.items()},
        "model": {**told, **_model(model, found)},
        "data": {"name": samples.name, "samples": len(samples), "hash": samples.hash},
        **plan,
        "versions": versions,
    }
    asked |= {"unknown": sorted(set(found.unknown))}
    return json.loads(json.dumps(asked, default=str))


def check(folder: Path, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a folder with a different sweep.

    Raises:
        SweepError: it names the first difference, or what cannot be compared.
    """
    before, now = _flat(kept), _flat(asked)
    for name in sorted((*now, *before), key=lambda name: "{}" in (now.get(name), before.get(name))):
        if name not in (("data", "name"), ("unknown",)) and before.get(name) != now.get(name):
            raise SweepError(
                f"{str(folder)!r} holds a sweep with {'.'.join(name)} ="
                f" {_short(before.get(name))}, and this one asks for {_short(now.get(name))}: ask"
                " for the same to go on, give another folder, or begin anew with resume=False."
            )
    if asked["unknown"]:
        raise SweepError(
            f"{str(folder)!r} holds a sweep that cannot be gone on with: whether"
            f" {', '.join(asked['unknown'])} is what it was cannot be told. Make it of numbers,"
            " words, tensors or functions of these, give another folder, or begin anew with"
            " resume=False."
        )


def _named(question: Callable[..., Any], found: Identity) -> dict[str, str]:
    """Module and name by which another process can import a function, and its hash."""
    module, name = getattr(question, "__module__", ""), getattr(question, "__qualname__", "")
    there: Any = sys.modules.get(str(module))
    for part in str(name).split("."):
        there = getattr(there, part, None)
    if not name or there is not question:
        raise SweepError(
            f"{name or shown(question)} cannot be recorded as a question: define it with `def` at"
            " the top of a module or notebook, and give what varies as options={...}."
        )
    return {"name": f"{module}.{name}", "code": found.of(question, str(name))}


def _plain(name: str, value: Any) -> Any:
    try:
        if not _worded(value):  # JSON would write the key 1 as "1"
            raise ValueError
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        raise SweepError(
            f"The option {name}={value!r} cannot be recorded: give numbers, words, lists, or dicts"
            " whose keys are words (a neuron as str(neuron))."
        ) from None


def _worded(value: Any) -> bool:
    """Whether the keys of all dicts in it are words."""
    if isinstance(value, (list, tuple)):
        return all(map(_worded, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(_worded, value.values()))
    return True


def _model(model: HookedModel, found: Identity) -> dict[str, Any]:
    """Everything of a model that results depend on; large parts as hashes."""
    there = {name: tower.module for name, tower in model.towers.items()}
    lm: Any = model.towers.get(LM)
    vision: Any = model.towers.get("vision")
    root = None if lm is None else lm.root
    first = next(next(iter(there.values())).parameters()) if lm is None else lm
    configs = {
        name: _config(getattr(getattr(part, "original_model", part), "config", None))
        for name, part in there.items()
    }
    generation = getattr(getattr(root, "original_model", None), "generation_config", None)
    changes = [(edit.site.name, edit.add, edit.address, edit.value) for edit in model.edits]
    hooks = [(hook.name, hook.dir, hook.call) for hook in model._hooks_now()]
    held = [one for tower in model.towers.values() for one in dictionaries_of(tower).values()]
    dictionaries = [[one.told(), weights_hash(one.dictionary.state_dict())] for one in held]
    return ({"dictionaries": dictionaries} if held else {}) | {
        "weights": {name: weights_hash(part.state_dict()) for name, part in there.items()},
        "edit_values": [found.of(one, f"the edit of {one[0]!r}") for one in changes],
        "hooks": [found.of(one, f"the hook at {one[0]!r}") for one in hooks],
        "lasting_hooks": [found.of(one, "a hook of TransformerLens") for one in _lasting(model)],
        "dtype": str(first.dtype).removeprefix("torch."),
        "dtypes": {name: _dtypes(part) for name, part in there.items()},
        "device": first.device.type,
        "prepend_bos": getattr(model, "prepend_bos", None),
        "preprocessing": vision.spec() if vision is not None else None,
        "config": found.of(configs),
        "generation": found.of(_config(generation)),
        "tokenizer": _tokenizer(getattr(lm, "tokenizer", None), found),
    }


def _dtypes(part: Any) -> list[str]:
    return sorted({str(value.dtype).removeprefix("torch.") for value in part.parameters()})


def _config(config: Any) -> dict[str, Any]:
    """A Hugging Face configuration without its source path."""
    told = config.to_dict() if hasattr(config, "to_dict") else {}
    return {k: v for k, v in told.items() if k not in ("_name_or_path", "transformers_version")}


def _tokenizer(tokenizer: Any, found: Identity) -> str | None:
    if tokenizer is None:
        return None
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules: Any = json.loads(fast.to_str()) if fast is not None else {}
    lasting = {k: v for k, v in rules.items() if k not in ("padding", "truncation")}  # of a call
    named = ("special_tokens_map", "add_bos_token", "add_eos_token", "clean_up_tokenization_spaces")
    told = [str(getattr(tokenizer, name, None)) for name in named]
    return found.of([lasting or sorted(tokenizer.get_vocab().items()), told])


def _lasting(model: HookedModel) -> list[Any]:
    """Hooks that were added to the towers themselves, except mmlens' own."""
    ours = getattr(getattr(model, "root", None), "_mmlens_inject", None)
    return [
        (name, point._forward_hooks.get(handle.hook.id))
        for tower in model.towers.values()
        for name, point in tower.every_point.items()
        for handle in point.fwd_hooks
        if handle is not ours
    ]


def _flat(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """{"a": {"b": 1}} as {("a", "b"): "1"}: values as JSON, in which NaN is NaN and 1 not True."""
    if not isinstance(tree, Mapping) or not tree:
        return {path: json.dumps(tree)}
    out: dict[tuple[str, ...], str] = {}
    for name, part in tree.items():
        out |= _flat(part, (*path, str(name)))
    return out


def _short(value: str | None) -> str:
    text = "nothing" if value is None else repr(json.loads(value))
    return text if len(text) <= 60 else f"{text[:12]}...{text[-1]}"
