"""The folder of this user in which mmlens keeps what it fetched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mmlens.checkpoints.weights import expanded


def user_cache() -> Path:
    r"""Where fetched weights lie; nothing is made here.

    `MMLENS_HOME` says where, or `XDG_CACHE_HOME` (then in `mmlens` there); else it is the system's
    place: `~/.cache/mmlens`, `~/Library/Caches/mmlens` on macOS, `%LOCALAPPDATA%\mmlens` on
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
