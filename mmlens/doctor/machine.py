"""The machine: versions beside the tested ones, devices, torch and torchvision, hub, folders."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmlens.doctor.tested import EXTRAS, TESTED

MAIN = ("torch", "transformers", "transformer-lens")


def first_line() -> str:
    """One line for a bug report: mmlens, Python, the three packages that matter most, system."""
    from mmlens import __version__

    parts = [f"mmlens {__version__}", f"Python {platform.python_version()}"]
    parts += [f"{name} {_installed(name) or 'missing'}" for name in MAIN]
    parts += [f"{platform.system()} {platform.machine()}", _best_device()]
    return " · ".join(parts)


def packages() -> list[dict[str, Any]]:
    """Each package: installed, the tested range, the extra it comes with, and its state.

    The state is "tested" inside the range, "newer than tested", "too old", or "not installed".
    """
    extra_of = {name: extra for extra, names in EXTRAS.items() for name in names}
    rows = []
    for name, (lowest, newest) in TESTED.items():
        there = _installed(name)
        rows.append(
            {
                "package": name,
                "installed": there,
                "tested": [lowest, newest],
                "extra": extra_of.get(name),
                "state": _state(there, lowest, newest),
            }
        )
    return rows


def devices() -> list[dict[str, Any]]:
    """Where a model can be put, and the memory there, in GiB."""
    import torch

    from mmlens.runtime.memory import free_memory

    cpu = {
        "device": "cpu",
        "name": f"{_many(os.cpu_count() or 1, 'core')}, {_many(torch.get_num_threads(), 'thread')}",
        "free_gib": round(free_memory() / 2**30, 1),
    }
    rows = [cpu]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(index)
            free = torch.cuda.mem_get_info(index)[0] / 2**30
            rows.append({"device": f"cuda:{index}", "name": name, "free_gib": round(free, 1)})
    if torch.backends.mps.is_available():
        rows.append({"device": "mps", "name": "Apple GPU (no float64)", "free_gib": None})
    return rows


def vision_pair() -> dict[str, Any]:
    """Whether torchvision is of the same build as torch: one of its compiled operators is called.

    `fits` is None where torchvision is not installed.
    """
    if _installed("torchvision") is None:
        return {"fits": None, "why": "not installed; it comes with mmlens[vision]"}
    try:
        import torch
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except Exception as error:  # a mismatch raises RuntimeError, ImportError, OSError, ...
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return {"fits": False, "why": f"{first}: install both in one command, by one installer"}
    return {"fits": True, "why": "torchvision.ops.nms runs"}


def hub() -> dict[str, Any]:
    """The Hugging Face cache and whether the network may be used; no request is made."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(p.name for p in cache.glob("models--*")) if cache.is_dir() else []
    return {
        "cache": _short(cache),
        "offline": bool(constants.HF_HUB_OFFLINE),
        "models": [name.removeprefix("models--").replace("--", "/") for name in models],
    }


def folders() -> list[dict[str, Any]]:
    """Folders that mmlens writes to, each tried."""
    from huggingface_hub import constants

    places = {
        "here": Path.cwd(),
        "temporary files": Path(tempfile.gettempdir()),
        "model cache": Path(constants.HF_HUB_CACHE),
    }
    return [
        {"folder": what, "path": _short(path), "writable": _writable(path)}
        for what, path in places.items()
    ]


def _writable(path: Path) -> bool:
    while not path.exists() and path != path.parent:
        path = path.parent  # what does not exist yet is made in the nearest folder that does
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _state(there: str | None, lowest: str, newest: str) -> str:
    from packaging.version import Version

    if there is None:
        return "not installed"
    if Version(there) < Version(lowest):
        return "too old"
    known = Version(Version(there).base_version) <= Version(newest)  # 2.15.0+cpu is 2.15.0
    return "tested" if known else "newer than tested"


def _best_device() -> str:
    if "torch" not in sys.modules and _installed("torch") is None:
        return "no torch"
    import torch

    if torch.cuda.is_available():
        return f"cuda {torch.version.cuda} ({torch.cuda.get_device_name(0)})"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
