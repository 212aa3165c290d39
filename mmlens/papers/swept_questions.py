"""Questions about pictures, swept one after the other into a study's folder: their tables by name.

OUT/sweeps/QUESTION     picture by picture: a run that was stopped goes on where it was
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.sweep.sweeping import sweep
from mmlens.values.arguments import flag


def swept(
    questions: Mapping[Callable[..., Any], Mapping[str, Any]],
    model: Any,
    samples: Any,
    folder: Path,
    *,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    chunk: int = 16,
) -> dict[str, pd.DataFrame]:
    """The table of each question, by its name.

    Args:
        questions: with the options of each.
        chunk: so many answers make a file; a run that was stopped has lost those of one.

    Raises:
        SweepError: the folder holds a sweep of something else.
    """
    how: dict[str, Any] = {"seed": seed, "resume": flag(resume, "resume"),
                           "progress": flag(progress, "progress"), "chunk": chunk}  # fmt: skip
    tables = {}
    for question, options in questions.items():
        name = question.__name__
        done = sweep(question, model, samples, folder / "sweeps" / name, options=options, **how)
        tables[name] = done.table(name)
    return tables


def answered(table: pd.DataFrame) -> int:
    """How many pictures have an answer."""
    return int(table.loc[table["skipped"] == "", "sample"].nunique())
