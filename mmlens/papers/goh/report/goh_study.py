"""`goh`: the experiments of the study in one call, as a folder with one page.

OUT/report.html      verdicts, figures, tables, provenance; one file
OUT/results.md       the same as Markdown
OUT/tables/T2.csv    the numbers of each experiment
OUT/golden/*.json    attacks and Stroop in the form of the paper's own data
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mmlens.methods.site_before_last import site_before_last
from mmlens.methods.stroop import STROOP_TEMPLATE
from mmlens.methods.unit_responses import TOWER
from mmlens.model.provenance import about as provenance
from mmlens.papers.goh.questions.formats import folder, spread_things, world
from mmlens.papers.goh.report.goh_experiments import Experiments
from mmlens.papers.goh.report.goh_texts import CITED, ENOUGH, READ, TITLE
from mmlens.papers.study_folder import StudyReport, opened, write_study
from mmlens.papers.study_report import Frame, Part
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, several, text
from mmlens.values.errors import writing
from mmlens.values.whole_files import write_whole
from mmlens.view.style.printed import one_line

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

NAMED = 24
"""So many concepts are named at the foot of the page."""
INKS = {"pictos-clip": "a word in {} ink"}
"""Per family the text that asks for an ink, where it has no words for the paper's."""


@dataclass(frozen=True, eq=False)
class GohReport(StudyReport):
    """What `reproduce` wrote and found.

    Attributes:
        units: of T2, one row per judged concept: concept, neuron, z, z_low, ..., passes.
    """

    units: pd.DataFrame = field(repr=False)


def reproduce(
    model: HookedModel | str | Path = "pictos-clip",
    data: str | Path | None = None,
    out: str | Path = "goh",
    *,
    concepts: Sequence[str] | int | None = None,
    each: int = 12,
    layer: int = -1,
    site: str | None = None,
    against: HookedModel | str | Path | None = "pictos",
    judged: int = 12,
    draws: int = 1000,
    seed: int = 0,
    results: str | Path | None = None,
) -> GohReport:
    """Measure T1 to T7 on any model with a vision tower, and report them.

    Args:
        data: a folder FORMAT/CONCEPT/*.png; by default scenes of the bundled world.
        out: the folder that is written.
        concepts: of the bundled world: things by name, or how many; by default all 223, so that
            distractors are many different things.
        each: pictures per concept and format; half of them choose, half of them judge.
        layer: of the vision tower, whose units are asked.
        site: where they are read; by default before the last nonlinearity, as in the paper.
        against: the model whose encoder has the matched units, by default the self-supervised one
            of the bundled bridge; None for none.
        judged: so many concepts are judged.
        draws: of bootstrap and permutations.
        results: write the Markdown here, too.

    Raises:
        ExperimentError: the data has no two formats of the same concepts, or fewer than 3 concepts.
    """
    count(each, "each", least=4)
    if data is not None:
        formats = folder(data)
    else:
        if concepts is None or isinstance(concepts, int):
            wanted = spread_things(concepts)
        else:
            wanted = [text(one, "concepts", empty=False) for one in several(concepts, "concepts")]
        formats = world(wanted, each, seed=count(seed, "seed", least=0))
    if len(next(iter(formats.values()))) < ENOUGH:
        raise ExperimentError(f"A study needs {ENOUGH} concepts at least: give more.")
    loaded = opened(model)
    other = opened(against)
    if other is not None and other.name == loaded.name:
        other = None  # an encoder is no control of itself
    family = str(loaded.provenance.get("family", ""))
    inks = [*([INKS[family]] if family in INKS else []), STROOP_TEMPLATE]
    study = Experiments(
        loaded, formats, layer, site_before_last(loaded, layer, site), other,
        count(judged, "judged"), count(draws, "draws"), count(seed, "seed", least=0), inks,
    )  # fmt: skip
    return _write(study, list(study.parts()), Path(out), results)


def _write(study: Experiments, parts: list[Part], out: Path, copy: str | Path | None) -> GohReport:
    """The folder of the report."""
    n = sum(len(seen) for own in study.formats.values() for seen in own.values())
    at = range(study.model.towers[TOWER].n_layers)[study.layer]
    lead = (
        f"{study.model.name}, units of layer {at} of its vision tower ({study.site}), on {n}"
        f" pictures of {len(study.concepts)} concepts in {len(study.formats)} formats:"
        f" {', '.join(study.formats)}."
    )
    about = {
        **{name.replace("_", " "): one_line(v) for name, v in provenance(study.model).items()},
        "matched units of": "none" if study.other is None else study.other.name,
        "concepts": _first(study.concepts), "draws": study.draws, "seed": study.seed,
    }  # fmt: skip
    command = f"`mmlens reproduce goh --model {study.model.name}`"
    frame = Frame("goh", TITLE, lead, READ, CITED, about, f"Written by {command}.")
    done = write_study(frame, parts, out, copy)
    with writing(out):
        (out / "golden").mkdir(exist_ok=True)
    for name, found in study.golden.items():
        write_whole(out / "golden" / name, json.dumps(found, indent=1) + "\n")
    return GohReport(done.page, done.results, done.verdicts, done.sections, study.best)


def _first(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names[:NAMED]) + (f", ... ({len(names)})" if len(names) > NAMED else "")
