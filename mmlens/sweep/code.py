"""The content of functions and classes for their hash: see `mmlens.sweep.identity`.

A function is hashed by its bytecode, so that comments and line numbers do not count, and by what
that reads.
"""

from __future__ import annotations

import dis
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.sample import content_hash

if TYPE_CHECKING:
    from mmlens.sweep.identity import Identity

Parts = Iterator[str | bytes]
_CHECKERS = ("jaxtyping", "beartype")
"""Wrappers that check annotations are not part of a function."""
_SKIPPED = {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"}
_SKIPPED |= {"__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"}


def hashed(*parts: str | bytes) -> bytes:
    return bytes.fromhex(content_hash(*parts))


def function_parts(found: Identity, value: Any, name: str) -> Parts:
    name = name or value.__qualname__
    while _home(value).split(".")[0] in _CHECKERS and hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    home = _home(value)
    cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
    yield f"{home}.{value.__qualname__}"
    yield from found.each([value.__defaults__, value.__kwdefaults__], f"a default of {name}")
    yield from found.each(cells, f"what {name} encloses")
    if not _installed(home) or _ours(home):
        yield code_hash(found, value.__code__)
    if not _installed(home):
        kept = {k: v for k, v in vars(value).items() if k != "__wrapped__"}
        yield from found.named(kept, f"an attribute of {name}")
        yield from found.named(_globals_of(value), "the global")


def _home(function: types.FunctionType) -> str:
    return str(function.__globals__.get("__name__", ""))


def _ours(module: str) -> bool:
    return module.split(".")[0] == "mmlens"


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # assigned to later
        return False


def code_hash(found: Identity, code: types.CodeType) -> bytes:
    """A hash of the bytecode: without comments, line numbers and file names."""
    constants = (code_hash(found, one) if isinstance(one, types.CodeType) else one
                 for one in code.co_consts)  # fmt: skip
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    whole = [code.co_code, names, counts, code.co_exceptiontable, *constants]
    return hashed(*found.each(whole, code.co_name))


def _globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function names; of a user's module, the attributes that it uses."""
    loads, attributes = _named_in(function.__code__)
    out: dict[str, Any] = {}
    for name in sorted(loads):
        if name not in function.__globals__:
            continue
        value = out[name] = function.__globals__[name]
        if isinstance(value, types.ModuleType) and not _installed(value.__name__):
            there = {one: getattr(value, one) for one in attributes if hasattr(value, one)}
            out |= {f"{name}.{one}": part for one, part in sorted(there.items())}
    return out


def _named_in(code: types.CodeType) -> tuple[set[str], set[str]]:
    """The globals and the attributes that code names, also in nested functions."""
    loads: set[str] = set()
    attributes: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            loads.add(str(step.argval))
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(str(step.argval))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more = _named_in(inner)
            loads, attributes = loads | more[0], attributes | more[1]
    return loads, attributes


def class_parts(found: Identity, value: type, name: str) -> Parts:
    yield f"{value.__module__}.{value.__qualname__}"
    if _installed(value.__module__):
        return
    yield from found.each(value.__bases__, name)
    for key, part in sorted(vars(value).items()):
        made = getattr(getattr(part, "__code__", None), "co_filename", "") == "<string>"
        if key not in _SKIPPED and not key.startswith("__dataclass_") and not made:
            yield key
            yield from found.each([part], f"{value.__qualname__}.{key}")


@lru_cache(maxsize=4096)
def _installed(module: str) -> bool:
    """Whether a module comes with Python or with a package, so that its version identifies it."""
    top = module.split(".")[0]
    if _ours(top) or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    places = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    if file is None:
        return False
    inside = any(Path(file).is_relative_to(place) for place in places)
    return inside or bool({"site-packages", "dist-packages"} & {*Path(file).parts})
