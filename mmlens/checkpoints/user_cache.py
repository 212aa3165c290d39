"""The user's cache folder for weights that mmlens fetched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mmlens.checkpoints.weights import expanded


def user_cache() -> Path:
    r"""The cache folder; it is not created here.

    `MMLENS_HOME` sets it, or `XDG_CACHE_HOME` (then its subfolder `mmlens`); otherwise it is the
    system's: `~/.cache/mmlens`, `~/Library/Caches/mmlens` on macOS, `%LOCALAPPDATA%\mmlens` on
    Windows.
    """
    if own := os.environ.get("MMLENS_HOME"):
        return expanded(own, "MMLENS_HOME").absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return expanded(shared, "XDG_CACHE_HOME").absolute() / "mmlens"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else expanded("~/AppData/Local")) / "mmlens"
    caches = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return expanded(caches) / "mmlens"
