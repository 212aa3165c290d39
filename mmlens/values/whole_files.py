"""Atomic writes: a file is written beside its destination, then moved there in one step.

A full disk, a kill or an exception at any moment leaves either the old file or the new one. The
temporary file has a unique hidden name (`.mmlens-....new`), so two processes never share one, no
pattern for results matches it, and it is removed when writing fails; only a kill leaves one behind,
which `remove_leftovers` removes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmlens.values.errors import writing

_NEW = ".mmlens-*.new"


def write_whole(path: str | Path, data: bytes | str) -> Path:
    """Write a file, or leave the one that is there as it is; returns its path.

    Args:
        path: a link is followed; a device or a pipe (`/dev/stdout`) is written directly.
        data: a text is written in UTF-8; characters that UTF-8 cannot encode (of a file name in
            another encoding) are written as escapes.

    Raises:
        WriteError: the system refuses.
    """
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with replacing(path) as new, new.open("wb") as file:
        file.write(content)
    return Path(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Within this context write the file whose path is given; at the end it replaces `path`.

    Raises:
        WriteError: the system refuses; the file at `path` is unchanged.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.exists() and not place.is_file() and not place.is_dir():
            yield place
            return
        new = place.with_name(_NEW.replace("*", secrets.token_hex(6)))
        try:
            with _as_oserror(), spelled(new, create=True) as spelling:
                yield spelling
            _to_disk(new)
            with suppress(FileNotFoundError):
                new.chmod(stat.S_IMODE(place.stat().st_mode))
            os.replace(new, place)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise


@contextmanager
def replacing_files(folder: str | Path, last: str) -> Iterator[Path]:
    """Within this context write files into the given folder; at the end they are moved.

    Weights (`*.safetensors`, their index) beside new ones that are not among them belong to the
    previous model and are removed.

    Args:
        folder: created if it does not exist.
        last: the file that describes the others; it is moved after them.

    Raises:
        WriteError: the system refuses; `folder` does not change while files are being written.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / _NEW.replace("*", secrets.token_hex(6))
        new.mkdir()
        try:
            with _as_oserror():
                yield new
            made = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
            for name in sorted(made, key=lambda name: name.as_posix() == last):
                _to_disk(new / name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(new / name, folder / name)
            for place in {name.parent for name in made if name.suffix == ".safetensors"}:
                for old in (folder / place).glob("*.safetensors*"):
                    if old.relative_to(folder) not in made:
                        old.unlink()
        finally:
            shutil.rmtree(new, ignore_errors=True)


def remove_leftovers(folder: str | Path, idle: float = 0.0) -> None:
    """Remove temporary files that a kill left in a folder.

    Args:
        idle: seconds since it was written to last; 0 where no other process can be writing there.
    """
    for new in Path(folder).rglob(_NEW):
        with suppress(OSError):
            if time.time() - new.stat().st_mtime >= idle:
                shutil.rmtree(new) if new.is_dir() else new.unlink()


@contextmanager
def spelled(path: str | Path, create: bool = False) -> Iterator[Path]:
    """A context with the file under a UTF-8 name, for libraries that need one (safetensors).

    Args:
        create: make the file where its own name is not in UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:  # only Linux has such names
        handle = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o666)
        try:
            yield Path(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
    else:
        yield Path(path)


def printable(name: object) -> str:
    """A file's name as text that can be written: bytes that are not UTF-8 become escapes."""
    try:
        return os.fsencode(str(name)).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that no file name has
        return str(name).encode("utf-8", "backslashreplace").decode()


@contextmanager
def _as_oserror() -> Iterator[None]:
    """Turn another library's exception for a refusal of the system back into an OSError."""
    try:
        yield
    except Exception as error:
        if refused := _refused(error):
            raise OSError(refused) from error
        raise


def _to_disk(new: Path) -> None:
    with new.open("rb+") as file:
        os.fsync(file.fileno())


def _refused(error: Exception) -> str | None:
    """The system's reason where another library wraps it in its own exception."""
    told = str(error)
    if type(error).__module__.split(".")[0].startswith(("safetensors", "_safetensors")):
        found = re.search(r'I/O error: (.*)|IoError.*message: "(.*?)"', told)
        return (found[1] or found[2]) if found else None
    if isinstance(error, RuntimeError) and ("unexpected pos" in told or "StreamWriter" in told):
        return "only part of the file was written"
    return None
