"""A sweep on disk: what is finished, and reading it back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.errors import nearest
from mmlens.scores import Scores
from mmlens.sweep.parts import read_scores, read_tables
from mmlens.sweep.record import SweepError, check
from mmlens.writing import write_whole

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
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = _manifest(self.folder)
        if not self.manifest:
            raise SweepError(f"{str(folder)!r} holds no sweep: there is no manifest.json.")

    def __len__(self) -> int:
        """How many chunks there are when it is finished."""
        return -(-self.manifest["data"]["samples"] // self.manifest["chunk"])

    def __repr__(self) -> str:
        done = sum(marker is not None for marker in map(self.chunk, range(len(self))))
        return f"Sweep({self.manifest['question']['name']}, {done} of {len(self)} chunks)"

    # -- what is finished ---------------------------------------------------------------------

    def path(self, kind: str, name: str, number: int) -> Path:
        """Where a chunk's part lies; `kind` is "tables" or "tensors"."""
        suffix = {"tables": "parquet", "tensors": "safetensors"}[kind]
        return self.folder / kind / name / f"{number:05d}.{suffix}"

    def chunk(self, number: int) -> dict[str, Any] | None:
        """What is known of a finished chunk (samples, failed, files), or None."""
        path = self.folder / "chunks" / f"{number:05d}.json"
        if not path.is_file():
            return None
        marker = json.loads(path.read_text(encoding="utf-8"))
        sizes = {file: self.folder / file for file in marker["files"]}
        whole = all(
            p.is_file() and p.stat().st_size == marker["files"][f] for f, p in sizes.items()
        )
        return marker if whole else None

    def finish(self, number: int, files: Mapping[Path, bytes], **marker: Any) -> int:
        """Write the files of a chunk and, last, that it is finished; returns the bytes written."""
        for path, data in files.items():
            write_whole(path, data)
        sizes = {
            path.relative_to(self.folder).as_posix(): len(data) for path, data in files.items()
        }
        text = json.dumps({**marker, "files": sizes}, indent=1)
        write_whole(self.folder / "chunks" / f"{number:05d}.json", text.encode())
        return sum(sizes.values())

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
            if marker and path.relative_to(self.folder).as_posix() in marker["files"]:
                some = True
                yield marker, path
        if not some:
            raise SweepError(f"{self!r} has no {kind} {name!r}: {nearest(name, self.names(kind))}.")


def begin(folder: Path, asked: Mapping[str, Any], resume: bool) -> None:
    """A folder that holds this sweep and no other, with what is finished of it.

    Raises:
        SweepError: it holds another and `resume` is set, or it is not a sweep's.
    """
    kept = _manifest(folder)
    if kept and resume:
        return check(folder, kept, asked)
    there = [part for part in PARTS if (folder / part).exists()]
    if there and not kept:
        raise SweepError(
            f"{str(folder)!r} holds {there[0]!r} but no sweep: give a folder of the sweep's own."
        )
    for part in there:  # chunks first: without them nothing counts as finished
        shutil.rmtree(folder / part)
    return write_whole(folder / "manifest.json", (json.dumps(asked, indent=1) + "\n").encode())


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        assert manifest["question"]["name"] and manifest["chunk"] and manifest["data"]["samples"]
    except (ValueError, KeyError, TypeError, AssertionError):
        raise SweepError(
            f"{str(path)!r} is not the manifest of a sweep: give another folder."
        ) from None
    return manifest
