"""How experiments write down what they found: the tables of questions and of summaries.

A question answers for one picture. Its table has one row per thing measured and, in every row,
`options` (what it was asked, defaults included, as JSON) and `skipped`: empty, or in the one row of
a picture without an answer the reason why, so that no picture is dropped in silence. A sweep puts a
column `sample` in front; `ask` does the same in memory.

A summary has the columns experiment, arm, metric, (k, layer, concept, ...), mean, low, high, n,
skipped, options: n pictures were measured, skipped pictures were not.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.errors import MMLensError

if TYPE_CHECKING:
    from mmlens.model import HookedVLM

UNNAMED = "the caption names nothing"


class ExperimentError(MMLensError, ValueError):
    """A table is not one that this summary reads, or an option is none that there is."""


def ask(
    question: Callable[..., Any],
    model: HookedVLM,
    samples: Iterable[Sample],
    *,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """The tables of a question about each sample, one after the other, with a column `sample`.

    What `mmlens.sweep.sweep` does on disk, for few pictures; of several results the first.
    """
    tables = []
    for sample in samples:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{seed} {sample.id}".encode()))
            answer = question(model, sample, **options)
        table = next(iter(answer.values())) if isinstance(answer, Mapping) else answer
        tables.append(table.assign(sample=sample.id))
    if not tables:
        raise ExperimentError(f"{question.__name__} was asked about no sample: give at least one.")
    columns = dict.fromkeys(["sample", *(name for table in tables for name in table.columns)])
    whole = pd.concat([table.dropna(axis=1, how="all") for table in tables], ignore_index=True)
    return whole.reindex(columns=list(columns))


def generator(seed: int, sample: Sample) -> torch.Generator:
    """Random numbers that depend on the seed and on which picture it is, and on nothing else."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {sample.id}".encode()))


def answered(table: pd.DataFrame, model: HookedVLM, **options: Any) -> pd.DataFrame:
    """The table of a question, with what was asked in every row."""
    asked = json.dumps({"model": model.name, **options}, default=_spelt)
    return table.assign(skipped="", options=asked)


def skipped(reason: str, columns: Iterable[str], model: HookedVLM, **options: Any) -> pd.DataFrame:
    """The one row of a picture that has no answer: the columns empty, and why."""
    empty = pd.DataFrame([dict.fromkeys(columns)])
    return answered(empty, model, **options).assign(skipped=reason)


def used(table: pd.DataFrame, *columns: str) -> Any:
    """The rows that hold an answer, a DataFrame.

    Raises:
        ExperimentError: a column is missing, or no picture has an answer; the reasons are counted.
    """
    for column in ("sample", "skipped", "options", *columns):
        if column not in table.columns:
            raise ExperimentError(
                f"This table has no column {column!r}, it has {', '.join(map(str, table.columns))}:"
                " give what sweep(...).table(...) or ask(...) returned for this experiment."
            )
    rows: Any = table[table["skipped"] == ""]
    if not len(rows):
        reasons = table.groupby("skipped")["sample"].nunique().to_dict()
        raise ExperimentError(f"No picture has an answer to summarise: {reasons or 'no rows'}.")
    return rows.reset_index(drop=True)


def finished(
    summary: pd.DataFrame, experiment: str, table: pd.DataFrame, **options: Any
) -> pd.DataFrame:
    """A summary with its experiment in front and, behind, pictures skipped and all options."""
    left_out = table.loc[table["skipped"] != "", "sample"].nunique()
    asked = json.loads(table["options"].iloc[0])
    told = json.dumps({**asked, "summary": options}, default=_spelt)
    out = summary.assign(skipped=left_out, options=told)
    out.insert(0, "experiment", experiment)
    return out


def _spelt(option: Any) -> str:
    return getattr(option, "__qualname__", None) or str(option)
