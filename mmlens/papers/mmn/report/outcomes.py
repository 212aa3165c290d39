"""The sweeps of all experiments, and their summaries: seven times a question, many pictures.

Every question writes a sweep into a folder of its own and goes on where it was stopped. What the
data cannot answer (no masks, no captions, nothing named) is an `Outcome` without a summary that
says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Samples
from mmlens.metrics.result import MetricError
from mmlens.papers.bootstrap import DRAWS
from mmlens.papers.mmn.questions import (
    ablation,
    classes,
    faithfulness,
    layers,
    project,
    readings,
    regions,
    sensitivity,
    sheet,
    translate,
)
from mmlens.papers.mmn.report.lenses import lenses
from mmlens.papers.mmn.report.plan import OpenChoices, Plan
from mmlens.papers.mmn.report.selection import Chosen, together
from mmlens.papers.scoring import Compare, Scorer
from mmlens.papers.tables import ExperimentError
from mmlens.sweep.sweep_folder import Sweep
from mmlens.sweep.sweeping import sweep

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True, eq=False)
class Outcome:
    """One experiment: its summary, or why there is none.

    Attributes:
        key: "E1" ... "E7", "faithfulness", "sensitivity", "readings".
        summary: the tidy table with intervals (E7: a row per unit of a sheet).
        why: empty, or the reason why nothing was measured.
        asked: sweeps, and how many pictures each was asked about.
        sweep: of E7, with its maps.
    """

    key: str
    summary: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    why: str = ""
    asked: Mapping[str, int] = field(default_factory=dict)
    sweep: Sweep | None = field(default=None, repr=False)

    def rows(self, **where: Any) -> Any:
        """The rows of the summary in which these columns have these values, a DataFrame."""
        found: Any = self.summary
        for column, value in where.items():
            found = found[found[column] == value]
        return found.reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Study:
    """What all experiments are measured with."""

    model: HookedVLM
    samples: Samples
    plan: Plan
    choices: OpenChoices
    chosen: Chosen
    folder: Path
    scorers: Mapping[str, Scorer]
    compare: Mapping[str, Compare]
    seed: int = 0
    draws: int = DRAWS
    resume: bool = True
    progress: bool = True
    tell: Callable[[str], None] = print

    def ask(self, name: str, question: Any, samples: Samples, chunk: int, **options: Any) -> Sweep:
        """A sweep in a folder of its own, gone on with where it was stopped."""
        folder = self.folder / name
        there = (folder / "manifest.json").is_file() and Sweep(folder).complete and self.resume
        self.tell(f"{name}: {len(samples)} pictures{', all there' if there else ''}")
        return sweep(
            question, self.model, samples, folder, options=options, chunk=chunk, seed=self.seed,
            resume=self.resume, progress=self.progress and not there,
        )  # fmt: skip

    def first(self, n: int) -> Samples:
        """The first pictures of the data.

        Raises:
            ExperimentError: n is 0, which leaves a question out.
        """
        if not n:
            raise ExperimentError("This study leaves the question out.")
        return self.samples[:n]

    @property
    def drawn(self) -> dict[str, Any]:
        return {"draws": self.draws, "seed": self.seed}


def measure(study: Study) -> Iterator[Outcome]:
    """All experiments, one after the other, as they are finished."""
    yield from _units(study)
    yield _told("E2", _projection, study)
    yield _told("E3", _regions, study)
    yield _told("E4", _classes, study)
    yield _told("E5", _ablation, study)
    yield _told("E7", _sheets, study)
    yield _told("faithfulness", _faithful, study)
    yield _told("sensitivity", _sensitive, study)
    yield _told("readings", _readings, study)


def _told(key: str, work: Callable[[Study], Outcome], study: Study) -> Outcome:
    """What was measured, or the sentence that says why it could not be."""
    try:
        return work(study)
    except (ExperimentError, MetricError) as error:
        return Outcome(key, why=str(error))


def _units(study: Study) -> Iterator[Outcome]:
    """E1 and E6, from one sweep."""
    samples = study.first(study.plan.units)
    done = study.ask("units", translate.top_units, samples, 8, **_units_options(study.choices))
    table, asked = done.table("top_units"), {"units": len(samples)}
    how = {**study.choices.of("keep", "shuffle"), "times": study.plan.shuffles}

    def e1(_: Study) -> Outcome:
        found = translate.summary(table, samples, study.scorers, **how, **study.drawn)
        return Outcome("E1", found, asked=asked)

    def e6(_: Study) -> Outcome:
        found = layers.summary(table, study.model.cfg.n_layers, **study.drawn)
        return Outcome("E6", found, asked=asked)

    yield _told("E1", e1, study)
    yield _told("E6", e6, study)


def _units_options(choices: OpenChoices) -> dict[str, Any]:
    return {**choices.of("point", "target", "rank_by", "gain"), **choices.explained}


def _projection(study: Study) -> Outcome:
    samples = study.first(study.plan.projection)
    options = {"vectors": study.plan.vectors, "seed": study.seed, **study.choices.explained}
    done = study.ask("projection", project.nearest_words, samples, 8, **options)
    found = project.summary(done.table("nearest_words"), samples, study.scorers, **study.drawn)
    return Outcome("E2", found, asked={"projection": len(samples)})


def _regions(study: Study) -> Outcome:
    concepts = study.chosen.concepts
    if not concepts:
        raise ExperimentError("No picture of the data shows a thing whose mask is known.")
    samples = study.samples.pick(together(concepts.values()))
    options = {**_units_options(study.choices), "seed": study.seed}
    done = study.ask("regions", regions.unit_regions, samples, 8, **options)
    table: Any = done.table("unit_regions")
    own = table[table["concept"].isin(list(concepts)) | (table["skipped"] != "")]
    return Outcome("E3", regions.summary(own, **study.drawn), asked={"regions": len(samples)})


def _classes(study: Study) -> Outcome:
    if len(study.chosen.first) < 2:
        raise ExperimentError(
            "Fewer than two classes have two pictures that show nothing else: there is nothing to"
            " tell apart."
        )
    seen = study.samples.pick(together(study.chosen.first.values()))
    other = study.samples.pick(together(study.chosen.second.values()))
    options = _units_options(study.choices)
    first = study.ask("class-units", translate.top_units, seen, 8, **options)
    units = classes.chosen(first.table("top_units"), seen, keep=study.choices.keep)
    every = list(dict.fromkeys(unit for own in units.values() for unit in own))
    second = study.ask(
        "classes", classes.class_activations, other, 16, units=every, prompt=study.choices.prompt
    )
    found = classes.summary(second.table("class_activations"), units, **study.drawn)
    return Outcome("E4", found, asked={"class-units": len(seen), "classes": len(other)})


def _ablation(study: Study) -> Outcome:
    samples = study.first(study.plan.ablation)
    names = ("point", "target", "rank_by", "gain", "value", "where", "random_from", "sinks")
    options = {**study.choices.of(*names), **study.choices.explained}
    done = study.ask(
        "ablation",
        ablation.ablations,
        samples,
        4,
        ks=list(study.plan.ks),
        randoms=study.plan.randoms,
        seed=study.seed,
        **options,
    )
    found = ablation.summary(done.table("ablations"), study.compare, **study.drawn)
    return Outcome("E5", found, asked={"ablation": len(samples)})


def _sheets(study: Study) -> Outcome:
    samples = study.first(study.plan.sheets)
    options = {**study.choices.of("point", "target", "gain"), **study.choices.explained}
    done = study.ask("sheets", sheet.picture_sheet, samples, 4, **options)
    table: Any = done.table("sheet")
    if not (table["skipped"] == "").any():
        raise ExperimentError(f"No picture has a sheet: {table['skipped'].iloc[0]}.")
    return Outcome("E7", table, asked={"sheets": len(samples)}, sweep=done)


def _faithful(study: Study) -> Outcome:
    samples = study.first(study.plan.faithful)
    options = {**study.choices.of("rank_by", "target", "value"), **study.choices.explained}
    done = study.ask(
        "faithfulness", faithfulness.faithful, samples, 2, methods=list(study.plan.methods),
        seed=study.seed, **options,
    )  # fmt: skip
    found = faithfulness.summary(done.table("faithful"), **study.drawn)
    return Outcome("faithfulness", found, asked={"faithfulness": len(samples)})


def _sensitive(study: Study) -> Outcome:
    samples = study.first(study.plan.sensitive)
    done = study.ask("sensitivity", sensitivity.option_effects, samples, 2,
                     **study.choices.explained)  # fmt: skip
    found = sensitivity.summary(done.table("option_effects"), **study.drawn)
    return Outcome("sensitivity", found, asked={"sensitivity": len(samples)})


def _readings(study: Study) -> Outcome:
    samples = study.first(study.plan.readings)
    made = lenses(
        study.model, study.samples, study.plan, study.folder / "lenses", study.tell,
        **study.choices.explained,
    )  # fmt: skip
    options = {**study.choices.of("point", "target", "gain"), **study.choices.explained}
    done = study.ask(
        "readings", readings.unit_readings, samples, 2, lenses=made, seed=study.seed, **options
    )
    found = readings.summary(done.table("unit_readings"), **study.drawn)
    return Outcome("readings", found, asked={"readings": len(samples)})
