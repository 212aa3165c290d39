"""How experiments write down what they found: the tables of questions and of summaries.

A question answers for one picture. Its table has one row per thing measured and, in every row,
`options` (what it was asked, defaults included, as JSON) and `skipped`: empty, or in the one row of
a picture without an answer the reason why, so that no picture is dropped in silence. A sweep puts a
column `sample` in front; `ask` does the same in memory.

A summary has the columns experiment, arm, metric, (k, layer, concept, ...), mean, low, high, n,
skipped, options: n pictures were measured, skipped pictures were not.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.runtime.progress import Progress, tracked
from mmlens.runtime.seeding import seed_of, seeded
from mmlens.values.arguments import count, instance, shown
from mmlens.values.errors import MMLensError, nearest
from mmlens.values.written import accepts, written

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

UNNAMED = "the caption names nothing"


class ExperimentError(MMLensError, ValueError):
    """A table is not one that this summary reads, or an option is none that there is."""


def ask(
    question: Callable[..., Any],
    model: HookedVLM,
    samples: Iterable[Sample],
    *,
    seed: int = 0,
    progress: Progress | bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The tables of a question about each sample, one after the other, with a column `sample`.

    What `mmlens.sweep.sweep` does on disk, for few pictures; of several results the first.

    Args:
        progress: a function of (done, of) samples; by default a bar after two seconds, which False
            leaves out.

    Raises:
        ExperimentError: no sample, or an option that the question does not have.
    """
    if not callable(question):
        raise ExperimentError(f"question={shown(question)} is no question: give a function of it.")
    count(seed, "seed", least=0)
    known = inspect.signature(question).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        for name in options:
            if name not in known:
                raise ExperimentError(
                    f"{question.__name__} has no option {name!r}: {nearest(name, list(known)[2:])}"
                )
    if not accepts(question, 2, options):
        raise ExperimentError(
            f"question={shown(question)} is called with a model, a sample and the options"
            f" {', '.join(options) or 'none'}, and has the parameters {', '.join(known)}: give all"
            " that have no default by name."
        )
    tables = []
    if isinstance(samples, str | Sample) or not isinstance(samples, Iterable):
        raise ExperimentError(f"samples={shown(samples)}: write a list of samples, [...].")
    asked = getattr(question, "__name__", "question")
    for sample in tracked(samples, asked, progress):  # one at a time, so that no picture is kept
        instance(sample, "samples", Sample, "samples of mmlens.dataset(...)")
        with seeded(seed_of(seed, sample.id)):
            answer = question(model, sample, **options)
        table = next(iter(answer.values())) if isinstance(answer, Mapping) else answer
        tables.append(table.assign(sample=sample.id))
    if not tables:
        raise ExperimentError(f"{question.__name__} was asked about no sample: give at least one.")
    columns = dict.fromkeys(["sample", *(name for table in tables for name in table.columns)])
    whole = pd.concat([table.dropna(axis=1, how="all") for table in tables], ignore_index=True)
    return whole.reindex(columns=list(columns))


def by_id(samples: Any) -> dict[str, Sample]:
    """The samples that a table is about, by name."""
    if isinstance(samples, str) or not isinstance(samples, Iterable):
        raise ExperimentError(f"samples={shown(samples)}: write a list of samples, [...].")
    what = "samples of mmlens.dataset(...)"
    return {instance(sample, "samples", Sample, what).id: sample for sample in samples}


def generator(seed: int, sample: Sample) -> torch.Generator:
    """Random numbers that depend on the seed and on which picture it is, and on nothing else."""
    return torch.Generator().manual_seed(seed_of(seed, sample.id))


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
        ExperimentError: a column is missing, or holds something else, or no picture has an answer;
            the reasons are counted.
    """
    instance(table, "table", pd.DataFrame, "what ask(...) or sweep(...).table(...) returned")
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
    for column in ("sample", "options", *columns):
        _of_its_kind(rows, column)
    return rows.reset_index(drop=True)


NUMBERS = frozenset(
    ("k", "prob", "value", "iou", "ceiling", "activation", "before", "probability", "said")
    + ("spearman", "cosine", "score")
)
MAY_LACK = NUMBERS - {"before", "probability"} | {"caption", "text"}


def _of_its_kind(rows: Any, column: str) -> None:
    """ExperimentError where a column has no text, no number, or nothing, and should."""
    values = rows[column]
    if column not in MAY_LACK and (missing := int(values.isna().sum())):
        raise ExperimentError(f"Column {column!r} is empty in {missing} rows of this table.")
    try:
        if column in NUMBERS:
            pd.to_numeric(values)
        if column == "options":
            json.loads(values.iloc[0])
    except (TypeError, ValueError):
        raise ExperimentError(
            f"Column {column!r} of this table holds {shown(values.iloc[0])}: give the table as"
            " sweep(...).table(...) or ask(...) returned it."
        ) from None


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
    return getattr(option, "__qualname__", None) or written(option)
