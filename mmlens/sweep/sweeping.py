"""`sweep`: run a question on a model for every sample, chunk by chunk."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from mmlens.datasets.sample import Samples
from mmlens.model.capabilities import require
from mmlens.model.hooked_model import HookedModel
from mmlens.runtime.seeding import seed_of, seeded
from mmlens.sweep.bar import Bar
from mmlens.sweep.crew import crew
from mmlens.sweep.pair_samples import PairSample, asked_of
from mmlens.sweep.record import SweepError, record
from mmlens.sweep.running import Running, check_fed, heal, unfed
from mmlens.sweep.sweep_files import table_bytes, tensor_bytes, to_arrow
from mmlens.sweep.sweep_folder import Sweep, alone, begin
from mmlens.tally import Tally
from mmlens.values.arguments import choice, count, instance, path
from mmlens.values.placeless import placeless
from mmlens.values.scores import Scores

Question = Callable[..., Any]
"""(model, sample, **options) -> DataFrame, Scores, or a dict of these by name."""


def sweep(
    question: Question,
    model: HookedModel,
    dataset: Any,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    tallies: Mapping[str, Sequence[Tally]] | None = None,
    chunk: int = 16,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    on_error: Literal["raise", "record"] = "raise",
) -> Sweep:
    """Run a question for every sample; finished samples on disk are not computed again.

    Args:
        question: a function of a module, (model, sample, **options) -> DataFrame, Scores or a dict
            of these. A single result gets the function's name.
        dataset: `Samples`, what `mmlens.dataset` takes, or a list of Pairs, of which causal verbs
            are asked (`mmlens.sweep.pair_samples`).
        out: the folder, for this sweep alone.
        options: of the question: numbers, words, lists, dicts; they are recorded.
        tallies: by the name of a result, running statistics to which it is added; it is not stored
            then.
        chunk: samples per file. An interruption costs the work on one chunk.
        seed: torch's generator is seeded for each sample, from this and its id.
        resume: continue with the folder's sweep; False deletes it and starts again.
        on_error: "raise" stops at the first sample that fails and keeps finished ones; "record"
            continues and lists it in `Sweep.failed`. The next call tries it again.

    Raises:
        SweepError: a sample failed (named, with the error as its cause), the folder holds a sweep
            of something else, or the question or its result cannot be recorded.
    """
    chunk = count(chunk, "chunk", error=SweepError)
    seed = count(seed, "seed", least=0, error=SweepError)
    choice(on_error, "on_error", ("raise", "record"), error=SweepError)
    samples, team = asked_of(dataset), crew()
    require(model)
    folder = path(out, "out", error=SweepError)
    fresh, given = _tallies(tallies), _by_name(options, "options", "{'k': 3}")
    kinds = {
        name: [[type(t).__name__, t.keep, t.settings] for t in ts] for name, ts in fresh.items()
    }
    asked = record(question, model, samples, given, chunk=chunk, seed=seed, tallies=kinds)
    with alone(folder) if team.rank == 0 else nullcontext():
        if team.rank == 0:
            begin(folder, asked, resume)
            heal(folder)
        team.wait()
        running = Running(folder, team.rank, fresh)
        go_on = on_error == "record"
        work = _Work(question, model, samples, given, Sweep(folder), running, seed, go_on)
        todo = [n for n in range(team.rank, len(work.sweep), team.world) if work.is_open(n)]
        team.wait()  # no process writes before all have read
        with Bar(sum(len(work.places(n)) for n in todo), progress and team.rank == 0) as bar:
            for number in todo:
                work.do(number, bar)
        team.wait()
        if work.answers:
            check_fed(folder, work.answers)
    return work.sweep


def _by_name(value: Any, name: str, example: str) -> dict[str, Any]:
    """A mapping as a new dict; None as an empty one."""
    if value is None:
        return {}
    return dict(instance(value, name, Mapping, f"a mapping, {example}", error=SweepError))


def _tallies(given: Any) -> dict[str, tuple[Tally, ...]]:
    given = _by_name(given, "tallies", "{'activations': [Top(k=9)]}")
    wrong = [name for name, several in given.items()
             if not isinstance(several, (list, tuple)) or not several
             or not all(isinstance(one, Tally) for one in several)]  # fmt: skip
    if wrong:
        raise SweepError(
            f"sweep(tallies={{{wrong[0]!r}: {given[wrong[0]]!r}}}): give a list of tallies, as in"
            f" {{{wrong[0]!r}: [Top(k=9)]}}."
        )
    return {name: tuple(several) for name, several in given.items()}


@dataclass
class _Work:
    """The shared state of the work on chunks."""

    question: Question
    model: Any
    samples: Samples
    options: Mapping[str, Any]
    sweep: Sweep
    running: Running
    seed: int
    go_on: bool
    answers: set[str] = field(default_factory=set)

    def places(self, number: int) -> range:
        """The indices of a chunk's samples in the data."""
        size = self.sweep.manifest["chunk"]
        return range(number * size, min((number + 1) * size, len(self.samples)))

    def is_open(self, number: int) -> bool:
        """Whether a chunk needs work: it is unfinished, or a sample has failed."""
        marker = self.sweep.chunk(number)
        return marker is None or bool(marker["failed"]) or bool(self._uncounted(number))

    def do(self, number: int, bar: Bar) -> None:
        """Run the question on the samples of a chunk, write the results, mark it as finished."""
        tables: dict[str, list[pa.Table]] = {}
        tensors: dict[str, dict[str, Scores]] = {}
        failed: dict[str, str] = {}
        uncounted = self._uncounted(number)
        for place in self.places(number):
            name = self.samples.ids[place]
            try:
                rows, scores = self._ask(place, count=name in uncounted)
            except Exception as error:
                if not self.go_on:
                    raise SweepError(_failure(name, self.samples, error)) from error
                failed[name] = placeless(f"{type(error).__name__}: {error}")
            else:
                for result, table in rows.items():
                    tables.setdefault(result, []).append(table)
                for result, one in scores.items():
                    tensors.setdefault(result, {})[name] = one
            bar.step()
        path = self.sweep.path
        files = {path("tables", name, number): table_bytes(rows) for name, rows in tables.items()}
        files |= {path("tensors", name, number): tensor_bytes(s) for name, s in tensors.items()}
        self.running.finish(number, [name for name in failed if name in uncounted])
        ids = [self.samples.ids[place] for place in self.places(number)]
        bar.wrote(self.sweep.finish(number, files, samples=ids, failed=failed))

    def _uncounted(self, number: int) -> set[str]:
        return self.running.missing(number, [self.samples.ids[p] for p in self.places(number)])

    def _ask(self, place: int, count: bool) -> tuple[dict[str, pa.Table], dict[str, Scores]]:
        """The tables and Scores of one sample to store; those with tallies are added to them."""
        name = self.samples.ids[place]
        sample = self.samples[place]
        of = sample.pair if isinstance(sample, PairSample) else sample
        with seeded(seed_of(self.seed, name)):
            answer = self.question(self.model, of, **self.options)
        answers = _named_answers(self.question.__name__, answer)
        if answers and not self.answers:
            for result in self.running.tallies.keys() - answers.keys():
                warnings.warn(f"{unfed(result, answers)} (of {name!r}).", stacklevel=2)
        self.answers |= answers.keys()
        kept = {r: v for r, v in answers.items() if r not in self.running.tallies}
        rows = {r: to_arrow(name, v, r) for r, v in kept.items() if isinstance(v, pd.DataFrame)}
        for result, value in answers.items():
            if count and result not in kept:
                self.running.add(result, value, place)
        return rows, {r: v for r, v in kept.items() if isinstance(v, Scores)}


def _named_answers(question: str, answer: Any) -> dict[str, Any]:
    """DataFrames and Scores by name, from any form of result."""
    answers = dict(answer) if isinstance(answer, Mapping) else {question: answer}
    for result, value in answers.items():
        if not re.fullmatch(r"[\w-]+", str(result)):
            raise SweepError(
                f"{question} calls an answer {result!r}, which cannot name a file: use letters,"
                " digits, - and _."
            )
        if not isinstance(value, (pd.DataFrame, Scores)):
            raise SweepError(
                f"{question} answers {result!r} with a {type(value).__name__}: return a DataFrame,"
                " Scores, or a dict of these."
            )
    return answers


def _failure(name: str, samples: Samples, error: Exception) -> str:
    return (
        f"Sample {name!r} of {samples.name} failed ({type(error).__name__}: {error}). Samples that"
        " are finished are kept: run it again to resume, or with on_error='record' to skip it."
    )
