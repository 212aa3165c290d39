"""Packages that only some uses need, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from mmlens.values.errors import CapabilityError


def package(name: str, extra: str = "train") -> Any:
    """accelerate, webdataset, datasets or pycocotools, or one sentence on how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise CapabilityError(
            f"This needs the package {name!r}, which is not installed:"
            f" pip install 'mmlens[{extra}]'."
        ) from None
