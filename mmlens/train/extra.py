"""The packages of `pip install 'mmlens[train]'`, imported only when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from mmlens.errors import CapabilityError


def package(name: str) -> Any:
    """accelerate, webdataset or datasets, or one sentence on how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise CapabilityError(
            f"This needs the package {name!r}, which is not installed: pip install 'mmlens[train]'."
        ) from None
