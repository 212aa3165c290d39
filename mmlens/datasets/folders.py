"""Captioned pictures in a folder, in one of four layouts.

    dog.jpg  dog.txt                        a caption per line, folders within are read too
    captions.jsonl | captions.csv |         rows of file_name and caption (or captions: a list);
    metadata.jsonl | metadata.csv           rows of the same picture are put together
    captions.json                           a list of such rows, or {"dog.jpg": caption(s), ...}
    image_data/*/*.json                     MAGMA's: {"image_path": ..., "captions": [...]}

The last is what the authors of LiMBeR trained from (github.com/Aleph-Alpha/magma).
"""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmlens.datasets.caption_pairs import CaptionPair, DataError, Listed, captions_in
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import nearest
from mmlens.values.picture_files import pictures, readable, suffix
from mmlens.values.whole_files import printable

TABLES = (
    "captions.jsonl",
    "captions.csv",
    "captions.json",
    "metadata.jsonl",
    "metadata.csv",
)
FILE_NAMES = ("file_name", "filename", "file", "image", "image_path", "path")
CAPTIONS = ("caption", "captions", "text", "sentences")

Row = tuple[Path, tuple[str, ...], str]
"""A picture's file, its captions, and where they were read."""


def read_folder(folder: str | Path, skip_bad: bool = False) -> Listed:
    """The pairs of a folder.

    Raises:
        DataError: none of the layouts, a picture that a table names is not there, or one has no
            caption (with `skip_bad` the last two are counted in `.bad`).
    """
    folder = folder_at(folder)
    pairs: list[CaptionPair] = []
    out = Listed(pairs, repr(str(folder)), skip_bad)
    for path, captions, where in read_rows(folder):
        key = printable(Path(os.path.relpath(path, folder)).as_posix())  # no folder of this machine
        if not captions:
            out.reject(key, f"{key!r} has no caption in {where}.")
        elif why := absent(path, folder, where):
            out.reject(key, f"{key!r}{why}")
        else:
            pairs.append(CaptionPair(path, captions, key))
    if not pairs and not out.bad:
        raise DataError(
            f"{str(folder)!r} holds no captioned pictures: put dog.txt beside dog.jpg, or a"
            " captions.jsonl with file_name and caption, or MAGMA's image_data/*/*.json in it."
        )
    return out


def folder_at(place: str | Path) -> Path:
    """A folder of pictures that can be listed; `~` is the user's home.

    Raises:
        DataError: it is not there, it is no folder, or its names cannot be read.
    """
    folder = path_of(place, "folder", error=DataError)
    try:
        folder = folder.expanduser()
        if folder.is_dir():
            next(folder.iterdir(), None)
            return folder
        is_file = folder.is_file()
    except RuntimeError as error:  # no such user
        raise DataError(f"There is no folder {str(place)!r} of pictures ({error}).") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"The folder {str(place)!r} cannot be read ({reason}).") from None
    if is_file:
        raise DataError(f"{str(place)!r} is a file: give the folder of the pictures.")
    raise DataError(f"There is no folder {str(place)!r} of pictures.")


def absent(path: Path, folder: Path, where: str) -> str | None:
    """Why a picture that a folder names is not there, to be said after its name; None if it is."""
    if path.is_file():
        return None
    if path.is_symlink():
        return f" is a link to {str(path.readlink())!r}, which is not there."
    if path.exists():
        return " is a folder, a pipe or a device, and no picture."
    return f", which {where} names, is not in {str(folder)!r}."


def read_rows(folder: Path) -> Iterator[Row]:
    """The pictures of a folder in any of the layouts, also those without a caption or a file.

    Hidden files and folders (`._dog.jpg`, `.git`) are none of them; where texts lie beside
    pictures, a warning counts the files that are neither.

    Raises:
        DataError: a folder within cannot be read.
    """
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is not None:
        return _from_table(table)
    if (folder / "image_data").is_dir():
        return _from_magma(folder)
    return _from_texts(folder)


def _from_texts(folder: Path) -> Iterator[Row]:
    """A text beside each picture; every line that is not empty is a caption."""
    opened, every = readable(), list(_files(folder))
    texts = {path.with_suffix(".txt") for path in every if suffix(path) in opened}
    others = Counter(printable(suffix(path)) or "without a suffix" for path in every
                     if suffix(path) not in opened and path not in texts)  # fmt: skip
    if told := _left_out(others):
        warnings.warn(f"{folder.name!r}: {told}", stacklevel=4)
    for path in every:
        if suffix(path) in opened:
            text = path.with_suffix(".txt")
            lines = _text(text).splitlines() if text.is_file() else []
            yield path, captions_in(lines), repr(text.name)


def _files(folder: Path) -> Iterator[Path]:
    """All files within, in the order of their paths; hidden ones and their folders are left out."""

    def refused(error: OSError) -> None:
        raise DataError(f"The folder {error.filename!r} cannot be read ({error.strerror}).")

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    yield from sorted(found)


def _left_out(others: Counter[str]) -> str:
    """How many files of which kinds are no samples, pictures that Pillow does not open first."""
    unread = {kind: n for kind, n in others.items() if n and kind in pictures()}
    rest = {kind: n for kind, n in others.items() if n and kind not in unread}
    parts = []
    for kinds, why in ((unread, "pictures that this Pillow does not open"), (rest, "no pictures")):
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        parts += [f"{sum(kinds.values())} files are left out, {why} ({told})."] if kinds else []
    return " ".join(parts)


def _from_magma(folder: Path) -> Iterator[Row]:
    for path in sorted((folder / "image_data").glob("[!.]*/[!.]*.json")):
        where = repr(path.relative_to(folder).as_posix())
        row = _json(_text(path), where)
        if "image_path" not in row:
            raise DataError(
                f"{where} does not say image_path: it has {', '.join(row) or 'nothing'}."
            )
        yield folder / str(row["image_path"]), captions_in(row.get("captions")), where


def _from_table(table: Path) -> Iterator[Row]:
    """Rows of one picture are put together, in the order in which they first come."""
    found: dict[Path, tuple[str, ...]] = {}
    for line, row in _table_rows(table):
        where = f"{'row' if table.suffix == '.json' else 'line'} {line} of {table.name!r}"
        name, text = _cell(row, FILE_NAMES, where), _cell(row, CAPTIONS, where)
        path = table.parent / str(name)
        found[path] = found.get(path, ()) + captions_in(text)
    for path, captions in found.items():
        yield path, captions, repr(table.name)


def _table_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = io.StringIO(_text(table), newline="")  # a caption may hold any other line separator
    if table.suffix == ".csv":
        try:
            yield from enumerate(csv.DictReader(lines), 2)
        except csv.Error as error:
            raise DataError(f"{table.name!r} is no table in CSV: {error}.") from None
    elif table.suffix == ".json":
        yield from enumerate(_listed(table), 1)
    else:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _json(line, f"line {number} of {table.name!r}")


def _listed(table: Path) -> list[dict[str, Any]]:
    """The rows of a captions.json, where a name may also stand before its captions."""
    try:
        rows = json.loads(_text(table))
    except ValueError as error:
        raise DataError(f"{table.name!r} is not JSON: {error}.") from None
    if isinstance(rows, dict):
        return [{"file_name": name, "caption": text} for name, text in rows.items()]
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    raise DataError(
        f"{table.name!r} holds no rows: write a list of objects with file_name and caption, or one"
        " object of captions by file name."
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name!r} is not a text in UTF-8 ({error.reason}).") from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror}).") from None


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is a {type(row).__name__}, not an object with named fields.")
    return row


def _cell(row: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    known = [str(key) for key in row]
    raise DataError(f"{where} has no {names[0]!r}: {nearest(names[0], known)}")
