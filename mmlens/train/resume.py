"""A training's checkpoint and its loss curve on disk.

The checkpoint is one file, replaced in a single step, so that a kill at any moment leaves the old
one or the new one. It holds weights, optimizer, schedule and step; order, captions and dropout are
functions of (seed, step) (see `mmlens.train.feed`), so no random state is in it. It is read with
`weights_only=True`: nothing in it can run.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmlens.values.errors import CheckpointError, writing
from mmlens.values.whole_files import replacing, write_whole

NAME = "checkpoint.pt"
COLUMNS = ("step", "loss", "lr", "grad_norm", "pictures_per_s", "held_out")


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes the state, made of tensors and plain values.

    Raises:
        WriteError: it cannot be written; the one before stays.
    """
    with replacing(folder / NAME) as new:
        torch.save(dict(state), new)


def read_checkpoint(folder: Path, device: torch.device, asked: Mapping[str, Any]) -> Any:
    """The state in a folder, or None where no training began.

    Args:
        folder: the training's.
        device: where its tensors go.
        asked: the settings now; those of the checkpoint have to be the same.

    Raises:
        CheckpointError: unreadable, or of a training with other settings or data.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        kept = dict(state["settings"])
    except Exception as error:  # torch raises half a dozen kinds
        raise CheckpointError(
            f"{str(path)!r} can't be read as a checkpoint ({str(error).splitlines()[0]}):"
            " delete it, or give another folder."
        ) from error
    for name in sorted({*kept, *asked}):
        if kept.get(name) != asked.get(name):
            raise CheckpointError(
                f"{str(folder)!r} holds a training with {name}={kept.get(name)!r}, and this one"
                f" asks for {asked.get(name)!r}: ask for the same to go on, give another folder,"
                " or begin anew with resume=False."
            )
    return state


class Curve:
    """The loss curve: a row per step, appended to `curve.csv` as it happens."""

    def __init__(self, path: Path | None, step: int) -> None:
        """Goes on after `step` steps; rows of steps that a kill undid are removed.

        Without a path (every process but the first) nothing is written.
        """
        self.path = path
        self.rows: list[Any] = _rows(path, step) if path is not None and step else []
        if path is not None:
            write_whole(path, ",".join(COLUMNS) + "\n" + _lines(self.rows))

    def add(self, row: Mapping[str, Any]) -> None:
        """Another step.

        Raises:
            WriteError: it cannot be written; the rows before stay, whole.
        """
        self.rows.append(dict(row))
        if self.path is None:
            return
        with writing(self.path), self.path.open("rb+", buffering=0) as file:
            end = file.seek(0, io.SEEK_END)
            line = _lines([row]).encode()
            try:
                if file.write(line) != len(line):  # a disk that is nearly full takes a part
                    raise OSError("the disk took only a part of it")
            except OSError:
                file.truncate(end)
                raise

    def frame(self) -> pd.DataFrame:
        """DataFrame of step, loss, lr, grad_norm, pictures_per_s and held_out (NaN: not asked)."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def points(self, most: int = 100) -> list[list[int | float]]:
        """[step, loss] of at most so many steps, evenly spaced, the last among them."""
        pick = self.rows[:: -(-len(self.rows) // most) or 1]
        pick += [] if not self.rows or pick[-1] is self.rows[-1] else [self.rows[-1]]
        return [[int(row["step"]), round(float(row["loss"]), 5)] for row in pick]


def _lines(rows: Any) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _rows(path: Path, step: int) -> list[Any]:
    """The rows of the first `step` steps; a line without its end was cut, and doesn't count."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    try:
        rows = [
            {name: float(value) if value else math.nan for name, value in row.items()}
            | {"step": int(row["step"])}
            for row in csv.DictReader(io.StringIO(whole))
        ]
        return [row for row in rows if row["step"] <= step]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{str(path)!r} can't be read as a loss curve ({str(error).splitlines()[0]}): delete"
            " it to go on without the rows of before."
        ) from error
