"""Names of a package that are looked up in their module on first use (PEP 562).

    _HOME = {"sweep": "run"}                              # name -> module of the package
    __getattr__, __dir__ = on_first_use(__name__, _HOME)

So `import mmlens` and each of its packages are quick; type checkers read the imports under
`if TYPE_CHECKING:` instead.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def on_first_use(
    package: str, home: Mapping[str, str], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        home: each public name with the module that it lives in: below the package, or in full.
        modules: submodules that are names too.

    Raises:
        AttributeError: there is no such name, with the nearest ones.
    """
    modules = tuple(modules)
    everything = sorted({*home, *modules})

    def look_up(name: str) -> Any:
        if name in home:
            at = home[name] if home[name].startswith("mmlens.") else f"{package}.{home[name]}"
            value = getattr(importlib.import_module(at), name)
        elif name in modules:
            value = importlib.import_module(f"{package}.{name}")
        else:
            from mmlens.errors import nearest

            raise AttributeError(f"{package} has no {name!r}: {nearest(name, everything)}")
        vars(sys.modules[package])[name] = value  # the next look-up does not come here
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *everything})

    return look_up, listed
