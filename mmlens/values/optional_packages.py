"""Packages that only some uses need, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from mmlens.values.errors import CapabilityError


def package(name: str, extra: str, user: str = "This") -> Any:
    """A module of an optional package, such as "timm" or "pycocotools.coco".

    Args:
        extra: the extra of mmlens that installs it.
        user: what needs it, as the beginning of the error sentence.

    Raises:
        CapabilityError: it is not installed; the error gives the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        what = (missing.name or name).split(".")[0]  # the package itself, or one that it needs
        raise CapabilityError(
            f"{user} needs the package {what!r}, which is not installed:"
            f" pip install 'mmlens[{extra}]'."
        ) from None
