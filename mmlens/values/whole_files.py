"""Files that are whole: written beside their place, then put into it in one step.

A full disk, a kill or an exception at any moment leaves the old file as it was, or the new one.
What is being written lies beside it under a hidden name of its own (`.mmlens-....new`), so two
processes never share one, no pattern for results finds it, and it is removed when writing fails;
only a kill leaves one behind, which `remove_leftovers` takes away.
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
        path: a link is followed; a device or a pipe (`/dev/stdout`) is written straight into.
        data: a text is written in UTF-8; what is no text of it (a file name in another encoding)
            stands as its code.

    Raises:
        WriteError: the system refuses.
    """
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with replacing(path) as new, new.open("wb") as file:
        file.write(content)
    return Path(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Inside, write the file whose path is given; at the end it takes the place of `path`.

    Raises:
        WriteError: the system refuses; what stood at `path` stands there still.
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
    """Inside, write files into the folder that is given; at the end they take their places.

    Weights (`*.safetensors`, their index) that lie beside new ones and are not among them belong to
    what was there before, and go.

    Args:
        folder: made if it isn't there.
        last: the file that says what the others are; it is moved when they are there.

    Raises:
        WriteError: the system refuses; while files are written nothing has changed in `folder`.
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
    """Take away what a kill left in a folder.

    Args:
        idle: seconds since it was written to last; 0 where nobody else can be writing there.
    """
    for new in Path(folder).rglob(_NEW):
        with suppress(OSError):
            if time.time() - new.stat().st_mtime >= idle:
                shutil.rmtree(new) if new.is_dir() else new.unlink()


@contextmanager
def spelled(path: str | Path, create: bool = False) -> Iterator[Path]:
    """Inside, the file under a name in UTF-8, for libraries that read no other (safetensors).

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
    """A file's name as text that can be written: bytes that are no UTF-8 stand as their codes."""
    try:
        return os.fsencode(str(name)).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a letter that never was in a file's name
        return str(name).encode("utf-8", "backslashreplace").decode()


@contextmanager
def _as_oserror() -> Iterator[None]:
    """What another library makes of the system's refusal, as the system says it."""
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
    """The system's reason where another library wraps it in an error of its own."""
    told = str(error)
    if type(error).__module__.split(".")[0].startswith(("safetensors", "_safetensors")):
        found = re.search(r'I/O error: (.*)|IoError.*message: "(.*?)"', told)
        return (found[1] or found[2]) if found else None
    if isinstance(error, RuntimeError) and ("unexpected pos" in told or "StreamWriter" in told):
        return "the disk took only a part of it"
    return None
