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
    package: str, home: Mapping[str, str], modules: Iterable[str] | Mapping[str, str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        home: each public name with the module that it lives in: below the package, or in full.
        modules: submodules that are names too, or names with the submodules that they mean.

    Raises:
        AttributeError: there is no such name, with the nearest ones.
    """
    meant = modules if isinstance(modules, Mapping) else {name: name for name in modules}
    everything = sorted({*home, *meant})

    def full(module: str) -> str:
        return module if module.startswith("mmlens.") else f"{package}.{module}"

    def look_up(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(full(home[name])), name)
        elif name in meant:
            value = importlib.import_module(full(meant[name]))
        else:
            from mmlens.values.errors import nearest

            raise AttributeError(f"{package} has no {name!r}: {nearest(name, everything)}")
        vars(sys.modules[package])[name] = value  # the next look-up does not come here
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *everything})

    return look_up, listed
