"""A training's checkpoint and its loss curve on disk.

The checkpoint is one file, replaced in a single step, so that a kill at any moment leaves the old
one or the new one. It holds weights, optimizer, schedule and step; order, captions and dropout are
functions of (seed, step) (see `mmlens.train.feed`), so no random state is in it. It is read with
`weights_only=True`: nothing in it can run.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmlens.errors import CheckpointError

NAME = "checkpoint.pt"
COLUMNS = ("step", "loss", "lr", "grad_norm", "pictures_per_s", "held_out")


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes the state, made of tensors and plain values."""
    new = folder / f"{NAME}.new"
    with new.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, folder / NAME)


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
        old = pd.read_csv(path) if path is not None and step and path.is_file() else pd.DataFrame()
        rows = old.to_dict("records")
        self.path = path
        self.rows: list[Any] = [row for row in rows if row["step"] <= step]
        self._write(self.rows, "w")

    def add(self, row: Mapping[str, Any]) -> None:
        """Another step."""
        self.rows.append(dict(row))
        self._write([row], "a")

    def frame(self) -> pd.DataFrame:
        """DataFrame of step, loss, lr, grad_norm, pictures_per_s and held_out (NaN: not asked)."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def points(self, most: int = 100) -> list[list[int | float]]:
        """[step, loss] of at most so many steps, evenly spaced, the last among them."""
        pick = self.rows[:: -(-len(self.rows) // most) or 1]
        pick += [] if not self.rows or pick[-1] is self.rows[-1] else [self.rows[-1]]
        return [[int(row["step"]), round(float(row["loss"]), 5)] for row in pick]

    def _write(self, rows: Any, mode: str) -> None:
        if self.path is None:
            return
        with self.path.open(mode, newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)
