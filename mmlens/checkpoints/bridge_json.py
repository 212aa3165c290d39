"""bridge.json, key by key: the known keys, their types and ranges.

    format       1
    family, name texts
    vision       kind ("hf", "open_clip", "timm"), class, arch; drop_prefix_tokens, feature_layer,
                 pooled, grid; image_size and the other numbers of `vision.pixels.Pixels`
    projection   kind ("linear"), d_in, d_out, bias
    lm           class, prepend_bos, fold_ln, tokenizer (false: it has none)
    provenance   anything; its sha256 has a hash per part
    files        sha256 of the small files in the folder

A part may also have a dtype, and instead of being in the folder it may be named: `hub` with a
`revision`, or a `folder` beside this one, and for an LM the `rows` of its vocabulary. A key that is
not listed here is refused, because a misspelt one would silently be ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from mmlens.runtime.casting import NAMES
from mmlens.towers.vision.pixels import FILTERS, Pixels
from mmlens.values.arguments import choice, count, flag, number, several, shown, text
from mmlens.values.errors import CheckpointError, nearest

FORMAT = 1
Check = Callable[[Any, str], Any]


def read_spec(folder: Path) -> dict[str, Any]:
    """bridge.json of a folder, checked.

    Raises:
        CheckpointError: it is missing, no JSON, of a newer mmlens, or has a wrong key.
    """
    path = folder / "bridge.json"
    if not path.is_file():
        what = "is a file and no folder" if folder.is_file() else "has no bridge.json"
        raise CheckpointError(f"{str(folder)!r} is no bridge: it {what}.")
    spec = read_json(path)
    said = spec.get("format")
    if type(said) is not int or said != FORMAT:
        raise CheckpointError(
            f"bridge.json of {folder.name!r} is written in format {said!r}; this mmlens reads"
            f" {FORMAT}: update mmlens."
        )
    missing = {"vision", "projection", "lm"} - set(spec)
    if missing:
        raise CheckpointError(f"bridge.json of {folder.name!r} does not say {sorted(missing)}.")
    _object(spec, "bridge.json", _TOP)
    return spec


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it cannot be read, is no JSON, or is no object.
    """
    where = f"{path.name} of {path.parent.name!r}"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON: {error}.") from error
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read: {error.strerror or error}.") from error
    if not isinstance(said, dict):
        raise CheckpointError(f"{where} holds no object {{...}} but {shown(said)}.")
    return said


def _object(value: Any, where: str, checks: Mapping[str, Check]) -> None:
    """An object whose keys are known and whose values pass their checks."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is {shown(value)}: write an object {{...}}.")
    for key, one in value.items():
        if key not in checks:
            raise CheckpointError(f"{where} has an unknown key {key!r}: {nearest(key, checks)}")
        name = f"{key} in bridge.json" if where == "bridge.json" else f"{where}, {key}"
        checks[key](one, name)


def _needs(value: Any, where: str, keys: Iterable[str]) -> None:
    for key in keys:
        if key not in value:
            raise CheckpointError(f"{where} does not say {key!r}.")


# -- one value --------------------------------------------------------------------------------


def _text(value: Any, name: str) -> None:
    text(value, name, empty=False, error=CheckpointError)


def _flag(value: Any, name: str) -> None:
    flag(value, name, error=CheckpointError)


def _count(value: Any, name: str) -> None:
    count(value, name, error=CheckpointError)


def _count0(value: Any, name: str) -> None:
    count(value, name, least=0, error=CheckpointError)


def _above0(value: Any, name: str) -> None:
    number(value, name, above=0, error=CheckpointError)


def _one_of(known: Iterable[str]) -> Check:
    return lambda value, name: choice(value, name, known, error=CheckpointError)


def _list_of(check: Check, length: int) -> Check:
    def checked(value: Any, name: str) -> None:
        members = several(value, name, error=CheckpointError)
        if len(members) != length:
            raise CheckpointError(f"{name}={shown(value)}: write {length} of them.")
        for member in members:
            check(member, name)

    return checked


def _size(value: Any, name: str) -> None:
    """A number of pixels, or [rows, columns]."""
    (_list_of(_count, 2) if isinstance(value, list) else _count)(value, name)


def _colour(value: Any, name: str) -> None:
    count(value, name, least=0, most=255, error=CheckpointError)


def _dict(value: Any, name: str) -> None:
    if value is not None and not isinstance(value, dict):
        raise CheckpointError(f"{name}={shown(value)}: write an object {{...}}.")


def _hash(value: Any, name: str) -> None:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise CheckpointError(f"{name}={shown(value)}: write the 64 hexadecimal digits of sha256.")


def _hashes(value: Any, name: str) -> None:
    _dict(value, name)
    for key, one in (value or {}).items():
        _hash(one, f"{name}, {key}")


# -- the objects ------------------------------------------------------------------------------


def _projection(value: Any, name: str) -> None:
    if isinstance(value, dict) and value.get("kind") != "linear":
        raise CheckpointError(
            f"{name} needs a {value.get('kind')!r} projection; mmlens reads 'linear'."
        )
    checks: dict[str, Check] = {"kind": _text, "d_in": _count, "d_out": _count}
    _object(value, name, checks | {"bias": _flag, "dtype": _DTYPE})


def _vision(value: Any, name: str) -> None:
    _object(value, name, _PART | _VISION | {f.name: _pixel(f) for f in fields(Pixels)})
    if "hub" not in value and "folder" not in value:
        _needs(value, name, ("kind", "class"))


def _lm(value: Any, name: str) -> None:
    _object(value, name, _PART | _LM)
    if "hub" not in value and "folder" not in value:
        _needs(value, name, ("class",))


def _provenance(value: Any, name: str) -> None:
    _dict(value, name)
    _object((value or {}).get("sha256", {}), f"{name}, sha256", dict.fromkeys(_PARTS, _hash))


def _pixel(field: Field[Any]) -> Check:
    """The check of a number of `Pixels`; by default the type of the default value."""
    if field.name in _PIXELS:
        return _PIXELS[field.name]
    default = None if field.default is MISSING else field.default
    by_type: dict[type, Check] = {bool: _flag, int: _count0, str: _text}
    finite: Check = lambda value, name: number(value, name, error=CheckpointError)  # noqa: E731
    return by_type.get(
        type(default), finite if type(default) is float else lambda value, name: None
    )


_PARTS = ("vision", "projection", "lm")
_DTYPE = _one_of(NAMES)
_PART: dict[str, Check] = {"class": _text, "dtype": _DTYPE, "hub": _text, "folder": _text}
_PART |= {"revision": _text}
_VISION: dict[str, Check] = {
    "kind": _one_of(("hf", "open_clip", "timm")),
    "arch": _dict,
    "drop_prefix_tokens": _count0,
    "feature_layer": _text,
    "pooled": _flag,
    "grid": _list_of(_count, 2),
    "image_size": _size,
}
_LM: dict[str, Check] = {"prepend_bos": _flag, "fold_ln": _flag, "tokenizer": _flag}
_LM |= {"rows": _count}
_PIXELS: dict[str, Check] = {
    "size": _size,
    "scale": _size,
    "resize": _one_of(("squash", "shortest", "longest", "none")),
    "interpolation": _one_of(FILTERS),
    "mean": _list_of(lambda value, name: number(value, name, error=CheckpointError), 3),
    "std": _list_of(_above0, 3),
    "rescale": _above0,
    "rounding": _one_of(("floor", "even")),
    "fill": _list_of(_colour, 3),
}
_TOP: dict[str, Check] = {
    "format": _count,
    "family": _text,
    "name": _text,
    "vision": _vision,
    "projection": _projection,
    "lm": _lm,
    "provenance": _provenance,
    "files": _hashes,
}
