"""Whether this kernel's JupyterLab is dark, as its settings on this machine say.

A kernel is not told the theme of the page that shows its output, and JupyterLab draws a plotly
figure in the colours that it has. The chosen theme stands in a file of JupyterLab's settings.
"""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from pathlib import Path

_FILE = "lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
_THEME = re.compile(r'"theme"\s*:\s*"([^"]*)"')


def lab_is_dark() -> bool:
    """Whether this is a kernel, and the JupyterLab of this user has a dark theme."""
    return "ipykernel" in sys.modules and _dark(_settings())


def _settings() -> Path:
    given = os.environ.get("JUPYTERLAB_SETTINGS_DIR")
    if given:
        return Path(given) / Path(_FILE).relative_to("lab/user-settings")
    return Path(os.environ.get("JUPYTER_CONFIG_DIR") or Path.home() / ".jupyter") / _FILE


@lru_cache
def _dark(settings: Path) -> bool:
    try:
        found = _THEME.search(settings.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False
    return found is not None and "dark" in found[1].lower()
