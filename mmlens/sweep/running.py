"""The tallies of a sweep: each process has its own, saved after every chunk.

One file per process holds the statistics and the chunks that they cover, so that the two are always
consistent; failed samples are recorded as missing. The files are merged when they are read, so a
different number of processes can resume the sweep.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmlens.checkpoints.weights import weights_hash
from mmlens.sweep.record import SweepError
from mmlens.tally import Tally
from mmlens.values.errors import CheckpointError, nearest, writing
from mmlens.values.scores import Scores
from mmlens.values.whole_files import spelled, write_whole

Tallies = dict[str, tuple[Tally, ...]]


class Running:
    """The tallies of this process, resumed from its file.

    Args:
        folder: of the sweep.
        rank: of this process, which has its own file.
        fresh: empty tallies by the names of results.
    """

    def __init__(self, folder: Path, rank: int, fresh: Mapping[str, Sequence[Tally]]) -> None:
        files = _files(folder)
        self.path = folder / "tallies" / f"{rank:03d}.safetensors"
        self.tallies: Tallies = {
            name: tuple(one.empty() for one in several) for name, several in fresh.items()
        }
        self.mine: dict[str, list[str]] = {}
        self.others = [_read(path)[1] for path in files if path != self.path]
        if self.path in files:
            self.tallies, self.mine = _read(self.path)

    def missing(self, chunk: int, samples: Sequence[str]) -> set[str]:
        """The samples of a chunk that are in no tally yet."""
        left = set(samples)
        for covered in (self.mine, *self.others):
            if str(chunk) in covered:
                left &= set(covered[str(chunk)])
        return left if self.tallies else set()

    def add(self, name: str, scores: Any, place: int) -> None:
        """Add Scores to all tallies of that name.

        Raises:
            SweepError: they are not Scores.
        """
        if not isinstance(scores, Scores):
            raise SweepError(f"A tally of {name!r} takes in Scores, not a {type(scores).__name__}.")
        for tally in self.tallies[name]:
            tally.add(scores, place)

    def finish(self, chunk: int, failed: Sequence[str]) -> None:
        """Save after a chunk; `failed` are its samples that were not added."""
        if not self.tallies:
            return
        from safetensors.torch import save

        self.mine[str(chunk)] = list(failed)
        tensors, meta = {}, {}
        for name, several in self.tallies.items():
            states = [tally.state() for tally in several]
            meta[name] = [told for _, told in states]
            for number, (kept, _) in enumerate(states):
                tensors |= {f"{name}/{number}/{key}": value for key, value in kept.items()}
        told = json.dumps({"chunks": self.mine, "tallies": meta, "hash": weights_hash(tensors)})
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, save(tensors, {"running": told}))


def heal(folder: Path) -> None:
    """Remove damaged files of tallies; the samples they covered are computed again."""
    for path in _files(folder):
        try:
            _read(path)
        except CheckpointError:
            warnings.warn(
                f"{str(path)!r} is damaged: its samples are computed again.", stacklevel=3
            )
            with writing(path):
                path.unlink()


def check_fed(folder: Path, answers: Collection[str]) -> None:
    """Refuse tallies to which no sample was added.

    Raises:
        SweepError: there is one; the error names it and the names of the results.
    """
    for name, several in read_running(folder).items():
        if all(tally.sizes is None for tally in several):
            raise SweepError(unfed(name, answers))


def unfed(name: str, answers: Collection[str]) -> str:
    """The sentence that nothing was added to a tally, with the names of the results."""
    near = nearest(name, sorted(answers)) if answers else "there were none"
    return f"No answer is called {name!r}, so nothing goes into its tallies: {near}"


def read_running(folder: Path) -> Tallies:
    """The tallies of all processes, merged."""
    out: Tallies = {}
    for path in _files(folder):
        for name, several in _read(path)[0].items():
            before = out.get(name)
            out[name] = (
                tuple(one.merge(other) for one, other in zip(before, several, strict=True))
                if before
                else several
            )
    return out


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "tallies").glob("*.safetensors"))


def _read(path: Path) -> tuple[Tallies, dict[str, list[str]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with spelled(path) as real, safe_open(real, framework="pt") as file:
            told: Any = json.loads((file.metadata() or {})["running"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if weights_hash(tensors) != told["hash"]:
            raise ValueError
        out: Tallies = {}
        for name, several in told["tallies"].items():
            parts = [f"{name}/{number}/" for number in range(len(several))]
            out[name] = tuple(
                Tally.of_state(
                    {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)},
                    meta,
                )
                for part, meta in zip(parts, several, strict=True)
            )
        return out, told["chunks"]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} does not hold the tallies of a sweep.") from error
