"""Hashes of objects by content: objects that may give different results have different hashes.

Numbers, words, tensors, pictures and labels count by their content; a function by its bytecode and
by everything that it reads: defaults, closure variables, the arguments of a partial, the object
that a method is bound to, and the globals it names, including functions. Installed packages count
by their names, since a sweep records their versions. Objects without content to compare (a lock, an
open file, a generator) are listed in `unknown`: a sweep that depends on them cannot be resumed.
"""

from __future__ import annotations

import builtins
import enum
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from mmlens.sweep.code import Parts, class_parts, function_parts, hashed

_PLAIN = (type(None), bool, int, str, bytes, complex, type(...), type(NotImplemented))


class Identity:
    """Hashes of objects, and the names of those that cannot be compared.

    Attributes:
        unknown: objects without content to compare, as error messages name them.
    """

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._done: dict[int, tuple[Any, bytes]] = {}
        self._within: list[int] = []

    def of(self, value: Any, name: str = "") -> str:
        """The hash of an object; `name` is its name in `unknown`."""
        return self._digest(value, name).hex()

    def _digest(self, value: Any, name: str) -> bytes:
        if type(value) in _PLAIN:
            return hashed(type(value).__name__, repr(value))
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._within:  # an object that contains itself
            return hashed("within", str(len(self._within) - self._within.index(id(value))))
        self._within.append(id(value))
        try:
            found = hashed(*self._parts(value, name))
        finally:
            self._within.pop()
        self._done[id(value)] = value, found  # kept, so that no other object gets its id
        return found

    def _parts(self, value: Any, name: str) -> Iterator[str | bytes]:
        """The hashed parts of an object: its kind first, then its content."""
        for kinds, read in _READERS:
            if isinstance(value, kinds):
                yield type(value).__name__
                yield from read(self, value, name)
                return
        yield from _any_object(self, value, name)

    def each(self, values: Iterable[Any], name: str) -> Iterator[bytes]:
        """The hashes of several objects, in their order."""
        return (self._digest(value, name) for value in values)

    def named(self, values: Mapping[Any, Any], name: str) -> Iterator[bytes]:
        """The hashes of named objects, in their order."""
        for key, value in values.items():
            yield self._digest(key, name)
            yield self._digest(value, f"{name}.{key}" if name else str(key))


Reader = Callable[[Identity, Any, str], Iterable[str | bytes]]


# Values -------------------------------------------------------------------------------------------


def _tensor(found: Identity, value: torch.Tensor, name: str) -> Parts:
    plain = value.detach().as_subclass(torch.Tensor).cpu()
    plain = plain.to_dense() if plain.layout != torch.strided else plain
    yield f"{plain.dtype} {tuple(plain.shape)}"
    yield plain.resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    yield from found.named(vars(value), name)  # ids that carry their pictures


def _array(found: Identity, value: np.ndarray | np.generic, name: str) -> Parts:
    yield f"{value.dtype} {value.shape}"
    if value.dtype.hasobject:
        yield from found.each([value.tolist()], name)
    else:
        yield value.tobytes()


def _image(found: Identity, value: Image.Image, name: str) -> Parts:
    yield f"{value.mode} {value.size}"
    yield value.tobytes()
    yield str(value.getpalette())


def _frame(found: Identity, value: Any, name: str) -> Parts:
    table = value.reset_index()
    yield from found.each([list(table.columns), [str(kind) for kind in table.dtypes]], name)
    yield from found.each((table[column].tolist() for column in table.columns), name)


def _set(found: Identity, value: Any, name: str) -> Parts:
    yield from sorted(found.each(value, name))


def _module(found: Identity, value: nn.Module, name: str) -> Parts:
    """Weights, all buffers (rotary tables are in no checkpoint), plain attributes of every part."""
    tensors = [dict(value.state_dict()), dict(value.named_buffers())]
    yield from found.each([type(value), *tensors], name)
    for path, part in value.named_modules():
        kinds = (*_PLAIN, float, types.FunctionType, types.BuiltinFunctionType, functools.partial)
        kept = {k: v for k, v in vars(part).items() if type(v) in kinds}
        yield from found.each([path, type(part).__qualname__, kept], name)
    beyond = ("edits", "_added", "provenance")  # of a HookedVLM
    yield from found.each([getattr(value, key, None) for key in beyond], name)


# Everything else ----------------------------------------------------------------------------------


def _any_object(found: Identity, value: Any, name: str) -> Parts:
    """An object by its class and its state, as pickle reduces it."""
    inner = getattr(value, "__wrapped__", None)
    if callable(inner):  # functools.cache, whose cache cannot be read
        yield from found.each([type(value).__name__, inner], name)
        return
    try:
        parts = value.__reduce_ex__(4)
    except Exception:  # whatever a class raises if it cannot be pickled
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        found.unknown.append(f"{name} (a {kind})" if name else f"a {kind}")
        yield kind
        return
    if isinstance(parts, str):
        yield f"{getattr(value, '__module__', '')}.{parts}"
        return
    make, args, state, items, pairs = (*parts, None, None, None)[:5]
    name = name or type(value).__qualname__
    yield from found.each([make, args, type(value)], name)
    yield from found.each([state, list(items or ()), list(pairs or ())], name)


def _builtin(found: Identity, value: Any, name: str) -> Parts:
    yield f"{value.__module__}.{getattr(value, '__qualname__', value)}"
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType) and owner is not builtins:
        yield from found.each([owner], name)


def _fields(*names: str) -> Reader:
    return lambda found, value, name: found.each([getattr(value, key) for key in names], name)


def _text(how: Callable[[Any], str]) -> Reader:
    return lambda found, value, name: [how(value)]


_READERS: list[tuple[Any, Reader]] = [
    (enum.Enum, _text(lambda value: f"{type(value).__qualname__}.{value.name}")),
    (np.generic, _array),
    (float, _text(float.hex)),
    ((torch.dtype, torch.device, PurePath, range, slice), _text(str)),
    (torch.Tensor, _tensor),
    (np.ndarray, _array),
    (Image.Image, _image),
    ((pd.DataFrame, pd.Series), _frame),
    ((list, tuple), lambda found, value, name: found.each(value, name)),
    (dict, lambda found, value, name: found.named(value, name)),
    ((set, frozenset), _set),
    (types.ModuleType, _text(lambda value: value.__name__)),
    (nn.Module, _module),
    (functools.partial, _fields("func", "args", "keywords")),
    (types.MethodType, _fields("__func__", "__self__")),
    (types.FunctionType, function_parts),
    ((staticmethod, classmethod), _fields("__func__")),
    (functools.cached_property, _fields("func")),
    (property, _fields("fget", "fset", "fdel")),
    (type, class_parts),
    ((types.BuiltinFunctionType, types.MethodWrapperType), _builtin),
    ((types.WrapperDescriptorType, types.MethodDescriptorType), _text(repr)),
    ((types.GetSetDescriptorType, types.MemberDescriptorType), _text(repr)),
]
