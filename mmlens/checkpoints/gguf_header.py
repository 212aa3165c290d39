"""The header of a GGUF file, read and checked before the tensors.

    magic "GGUF", version, counts;  key-value pairs;  per tensor name, shape, type, offset;  data

Only the pairs that decide whether and how the file can be loaded are kept (short ones: texts and
numbers); vocabularies are skipped. So a file of another kind, of another version, cut off on the
way or in several parts is refused in milliseconds.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmlens.values.errors import CheckpointError
from mmlens.values.optional_packages import package

VERSIONS = (2, 3)
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_FORMATS |= {12: "d"}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a GGUF file.

    Attributes:
        shape: fastest axis first, as in the file.
        kind: the number of its format in ggml's list of quantisations.
        offset: where it begins, in bytes from the beginning of all tensors.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Attributes:
        pairs: its key-value pairs; for an array its length.
        begins: where the tensors begin, in bytes.
    """

    pairs: dict[str, Any]
    tensors: tuple[StoredTensor, ...]
    begins: int

    @property
    def architecture(self) -> str:
        """The name that llama.cpp gives to models of this kind."""
        return str(self.pairs.get("general.architecture", ""))

    @cached_property
    def types(self) -> dict[str, int]:
        """How many tensors are in which format, by ggml's names: {"Q4_1": 211, "F32": 61}."""
        known = package("gguf", "gguf", "A GGUF file").GGMLQuantizationType
        names = {int(one): str(one.name) for one in known}
        counts = Counter(names.get(one.kind, f"type {one.kind}") for one in self.tensors)
        return dict(counts.most_common())

    @property
    def ends(self) -> int:
        """The length that the file must have, in bytes."""
        sizes = package("gguf", "gguf", "A GGUF file").GGML_QUANT_SIZES
        ends = [0]
        for one in self.tensors:
            block, size = sizes.get(one.kind, (1, 0))  # the size of an unknown format is not known
            ends.append(one.offset + one.numel // block * size)
        return self.begins + max(ends)


def read_header(path: Path) -> GgufHeader:
    """The header of a whole GGUF file.

    Raises:
        CheckpointError: it is no GGUF file, of another version, in parts, or cut off.
        CapabilityError: the package gguf is not installed.
    """
    where, size = repr(path.name), 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            _check_kind(file.read(24), where, size)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _parsed(_Cursor(data))
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read: {error.strerror or error}.") from error
    except (struct.error, UnicodeDecodeError, ValueError, MemoryError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"The header of {where} is damaged or cut off ({size:,} bytes): fetch the file again."
        ) from error
    if (parts := header.pairs.get("split.count", 0)) > 1:
        raise CheckpointError(
            f"{where} is one of {parts} parts of a model, and whole files are read: join them with"
            " llama.cpp's `llama-gguf-split --merge FIRST_PART WHOLE.gguf`."
        )
    if size < header.ends:
        raise CheckpointError(
            f"{where} is cut off: it has {size:,} of {header.ends:,} bytes; fetch it again."
        )
    return header


def _check_kind(start: bytes, where: str, size: int) -> None:
    """Check the first bytes of the file."""
    if start.startswith(b"version https://git"):
        raise CheckpointError(
            f"{where} is a git-lfs pointer of {size} bytes, which only names the file: fetch it"
            " with `git lfs pull`."
        )
    if start[:4] != b"GGUF":
        held = "is empty" if not size else f"begins with {start[:4]!r} and not with b'GGUF'"
        raise CheckpointError(f"{where} is no GGUF file: it {held}.")
    version = int.from_bytes(start[4:8], "little")
    if version not in VERSIONS:
        said = "big-endian" if version >> 16 else f"of version {version}"
        raise CheckpointError(
            f"{where} is a GGUF file {said}: mmlens reads versions 2 and 3, little-endian; convert"
            " the model again."
        )


class _Cursor:
    """Reads along a file in memory."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Numbers in struct's format, little-endian."""
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def text(self) -> str:
        """A text, stored after its length."""
        (length,) = self.numbers("Q")
        found = self.data[self.at : self.at + length]
        if len(found) != length:
            raise ValueError("cut off")
        self.at += length
        return found.decode("utf-8")

    def value(self, kind: int) -> Any:
        """A value of one of GGUF's types; for an array its length."""
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(_FORMATS[kind])[0]
        inner, length = self.numbers("IQ")
        if inner in _FORMATS:
            self.at += length * struct.calcsize(f"<{_FORMATS[inner]}")
        else:
            for _ in range(length):
                self.skip(inner)
        return length

    def skip(self, kind: int) -> None:
        """Skips a text, or an array of arrays."""
        if kind == _TEXT:
            (length,) = self.numbers("Q")
            self.at += length
        else:
            self.value(kind)


def _parsed(cursor: _Cursor) -> GgufHeader:
    """Key-value pairs and tensors, in the order of the file."""
    cursor.at = 8
    n_tensors, n_pairs = cursor.numbers("QQ")
    pairs: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.text()
        pairs[key] = cursor.value(*cursor.numbers("I"))
    tensors = []
    for _ in range(n_tensors):
        name, (axes,) = cursor.text(), cursor.numbers("I")
        shape, (kind, offset) = cursor.numbers(f"{axes}Q"), cursor.numbers("IQ")
        tensors.append(StoredTensor(name, shape, kind, offset))
    align = int(pairs.get("general.alignment", 32))
    return GgufHeader(pairs, tuple(tensors), -(-cursor.at // align) * align)
