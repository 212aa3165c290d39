"""Names of a package that are imported on first use (PEP 562), from one list in its source.

    if TYPE_CHECKING:
        from mmlens.sweep.sweeping import sweep as sweep
    else:
        __getattr__, __dir__, __all__ = on_first_use(__name__)

Type checkers and editors read the imports directly; at run time the same lines are the table of
what `__getattr__` imports. So `import mmlens` and its packages import quickly, and each public name
is declared once.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


def public_names(package: str) -> dict[str, tuple[str, str]]:
    """The names that a package imports on first use: name -> (module, its name there)."""
    spec = find_spec(package)
    source = spec.loader.get_source(package) if spec and spec.loader else None  # type: ignore
    found: dict[str, tuple[str, str]] = {}
    for block in ast.parse(source or "").body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for line in block.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    found |= {one.asname or one.name: (line.module, one.name) for one in line.names}
    return found


def on_first_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from its `if TYPE_CHECKING:` block.

    Args:
        package: its `__name__`.

    Raises:
        AttributeError: from `__getattr__`: there is no such name, with the nearest ones.
    """
    names = public_names(package)

    def look_up(name: str) -> Any:
        if name not in names:
            from mmlens.values.errors import nearest

            raise AttributeError(f"{package} has no {name!r}: {nearest(name, names)}")
        module, there = names[name]
        if module == package:  # a module of the package is a name of it, too
            value: Any = importlib.import_module(f"{package}.{there}")
        else:
            value = getattr(__import__(module, fromlist=[there]), there)
        vars(sys.modules[package])[name] = value  # the next look-up finds it there
        return value

    def listed() -> list[str]:
        own = (name for name in vars(sys.modules[package]) if name.startswith("__"))
        return sorted({*own, *names})  # other imports of the package are not offered

    return look_up, listed, sorted(names)
