"""A sweep on disk: finished chunks, and reading their results."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.sweep.record import SweepError, check
from mmlens.sweep.sweep_files import read_scores, read_tables
from mmlens.values.arguments import path as checked
from mmlens.values.errors import nearest, writing
from mmlens.values.scores import Scores
from mmlens.values.whole_files import remove_leftovers, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.tally import Tally

PARTS = ("chunks", "tables", "tensors", "tallies")


class Sweep:
    """The folder of a sweep, finished or not.

        done = mm.Sweep("runs/strongest")
        done.table("strongest"), done.failed, done.manifest["model"]

    Args:
        folder: that `sweep` wrote to.

    Raises:
        SweepError: it holds no sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = checked(folder, "folder", error=SweepError)
        self.manifest: dict[str, Any] = _manifest(self.folder)
        self._read: dict[tuple[str, int, int], str] = {}
        if not self.manifest:
            raise SweepError(f"{str(folder)!r} holds no sweep: there is no manifest.json.")

    def __len__(self) -> int:
        """The number of chunks of the finished sweep."""
        return -(-self.manifest["data"]["samples"] // self.manifest["chunk"])

    def __repr__(self) -> str:
        done = sum(marker is not None for marker in map(self.chunk, range(len(self))))
        return f"Sweep({self.manifest['question']['name']}, {done} of {len(self)} chunks)"

    # -- what is finished ---------------------------------------------------------------------

    def path(self, kind: str, name: str, number: int) -> Path:
        """The path of a chunk's file; `kind` is "tables" or "tensors"."""
        suffix = {"tables": "parquet", "tensors": "safetensors"}[kind]
        return self.folder / kind / name / f"{number:05d}.{suffix}"

    def chunk(self, number: int) -> dict[str, Any] | None:
        """The marker of a finished chunk (samples, failed, files), or None.

        A chunk whose marker or one of whose files is damaged is not finished.
        """
        path = self.folder / "chunks" / f"{number:05d}.json"
        try:
            marker = json.loads(path.read_text(encoding="utf-8"))
            known = {"samples": list, "failed": dict, "files": dict}
            told = all(isinstance(marker[name], kind) for name, kind in known.items())
            whole = told and all(self._is_whole(*file) for file in marker["files"].items())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return marker if whole else None

    def _is_whole(self, name: str, digest: str) -> bool:
        """Whether a file has the digest that was written; read once unless it changes."""
        path = self.folder / name
        status = path.stat()
        key = (name, status.st_size, status.st_mtime_ns)
        if key not in self._read:
            with path.open("rb") as file:
                self._read[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._read[key] == digest

    def finish(self, number: int, files: Mapping[Path, bytes], **marker: Any) -> int:
        """Write the files of a chunk and, last, its marker; returns the bytes written."""
        if not (self.folder / "manifest.json").is_file():
            raise SweepError(f"{str(self.folder)!r} was deleted while a sweep was working in it.")
        for path, data in files.items():
            _write(path, data)
        hashes = {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(data).hexdigest()
            for path, data in files.items()
        }
        text = json.dumps({**marker, "files": hashes}, indent=1)
        _write(self.folder / "chunks" / f"{number:05d}.json", text.encode())
        return sum(map(len, files.values()))

    @property
    def complete(self) -> bool:
        """Whether every chunk is finished, failed samples included."""
        return all(self.chunk(number) is not None for number in range(len(self)))

    @property
    def failed(self) -> pd.DataFrame:
        """The samples that failed while `on_error="record"`: sample, error."""
        import pandas as pd

        markers = filter(None, map(self.chunk, range(len(self))))
        rows = [row for marker in markers for row in marker["failed"].items()]
        return pd.DataFrame(rows, columns=["sample", "error"])

    # -- reading ------------------------------------------------------------------------------

    def names(self, kind: str = "tables") -> list[str]:
        """The names of all "tables", or of all "tensors"."""
        return sorted(path.name for path in (self.folder / kind).glob("*") if path.is_dir())

    def table(self, name: str) -> pd.DataFrame:
        """All rows of a table, in the order of the data: sample, then the question's columns."""
        return read_tables([path for _, path in self._parts("tables", name)])

    def each(self, name: str) -> Iterator[tuple[str, Scores]]:
        """Sample id and its Scores, in the order of the data, a chunk in memory at a time."""
        for _, path in self._parts("tensors", name):
            yield from read_scores(path).items()

    def scores(self, name: str, sample: str) -> Scores:
        """The Scores of one sample.

        Raises:
            SweepError: no such name, or no such sample among those that are finished.
        """
        for marker, path in self._parts("tensors", name):
            if sample in marker["samples"] and sample in (found := read_scores(path)):
                return found[sample]
        raise SweepError(f"There are no Scores {name!r} of sample {sample!r} in {self!r}.")

    def tallies(self, name: str) -> tuple[Tally, ...]:
        """The running statistics of a result, those of all processes merged."""
        from mmlens.sweep.running import read_running

        tallies = read_running(self.folder)
        if name not in tallies:
            raise SweepError(f"{self!r} has no tallies of {name!r}: {nearest(name, tallies)}.")
        return tallies[name]

    def _parts(self, kind: str, name: str) -> Iterator[tuple[dict[str, Any], Path]]:
        """Marker and file of the finished chunks that have this part."""
        some = False
        for number in range(len(self)):
            path, marker = self.path(kind, name, number), self.chunk(number)
            if marker is None and (self.folder / "chunks" / f"{number:05d}.json").exists():
                warnings.warn(
                    f"Chunk {number} of {str(self.folder)!r} is damaged and left out: run the sweep"
                    " again to compute it.",
                    stacklevel=4,
                )
            if marker and path.relative_to(self.folder).as_posix() in marker["files"]:
                some = True
                yield marker, path
        if not some:
            raise SweepError(f"{self!r} has no {kind} {name!r}: {nearest(name, self.names(kind))}.")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A context in which no other sweep works in the folder; the lock also ends with a kill.

    Raises:
        SweepError: another sweep does.
        WriteError: the folder cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(
                f"Another sweep is working in {str(folder)!r}: wait for its end, or give another"
                " folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(lock)


def begin(folder: Path, asked: Mapping[str, Any], resume: bool) -> None:
    """Prepare a folder for this sweep and no other, keeping its finished chunks.

    Raises:
        SweepError: it holds another sweep and `resume` is set, or other files.
    """
    kept = _manifest(folder)
    if kept and resume:
        check(folder, kept, asked)
        remove_leftovers(folder)
        return
    if asked["unknown"]:
        warnings.warn(
            f"This sweep cannot be gone on with once it has stopped: {', '.join(asked['unknown'])}"
            " has no content that another run could be compared with.",
            stacklevel=3,
        )
    there = [part for part in PARTS if (folder / part).exists()]
    if there and not kept:
        raise SweepError(
            f"{str(folder)!r} holds {there[0]!r} but no sweep: give a folder of the sweep's own."
        )
    with writing(folder):
        for part in there:  # chunks first: without them nothing counts as finished
            shutil.rmtree(folder / part)
    remove_leftovers(folder)
    write_whole(folder / "manifest.json", json.dumps(asked, indent=1) + "\n")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        sizes = (manifest["chunk"], manifest["data"]["samples"])
        assert manifest["question"]["name"] and all(type(n) is int and n > 0 for n in sizes)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise SweepError(
            f"{str(path)!r} is not the manifest of a sweep: give another folder."
        ) from None
    except OSError as error:
        raise SweepError(f"{str(path)!r} cannot be read ({error.strerror}).") from None
    return manifest


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
