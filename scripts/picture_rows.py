"""Measures of pictures, one picture after the other, kept in a file from which a run goes on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

Measure = Callable[[Any], list[dict[str, Any]]]
"""Of a sample, rows with the column `sample`; none where it cannot be asked."""


def options(told: str | None, pictures: int) -> argparse.ArgumentParser:
    """What every such script is told: --pictures, --print, --rows."""
    found = argparse.ArgumentParser(description=told)
    found.add_argument("--pictures", type=int, default=pictures)
    found.add_argument("--print", action="store_true", help="show the table and write nothing")
    found.add_argument("--rows", type=Path, help="a CSV of measures to keep and to go on from")
    return found


def measured(
    samples: Iterable[Any], pictures: int, measure: Measure, file: Path | None = None
) -> pd.DataFrame:
    """The rows of the first so many samples that give any, with those that the file has already."""
    rows: Any = pd.DataFrame({"sample": []})
    if file is not None and file.is_file():
        rows = pd.read_csv(file)
    for sample in samples:
        if rows["sample"].nunique() >= pictures:
            break
        if sample.id in set(rows["sample"]):
            continue
        rows = pd.concat([rows, pd.DataFrame(measure(sample))])
        if file is not None:
            rows.to_csv(file, index=False)
        print(f"{rows['sample'].nunique()} of {pictures} pictures", flush=True)
    return rows
