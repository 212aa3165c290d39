"""`shootout`: the contests of all studies, as one page and one table.

OUT/shootout.csv     every method: its number, its control's, their difference with an interval
OUT/NAME             the whole study behind some rows, which goes on where it was stopped
OUT/report.html, OUT/results.md       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.spec import dataset
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, LEAST, MOST
from mmlens.papers.contests import COLUMNS, Contest, contest_table, judged
from mmlens.papers.interval_plots import strips
from mmlens.papers.shootout.studies import STUDIES
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.study_report import Part
from mmlens.papers.tables import ExperimentError
from mmlens.sweep.record import SweepError
from mmlens.values.arguments import choice, count, flag, path, several
from mmlens.values.errors import CheckpointError, MMLensError
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

TITLE = "The shoot-out: every method against its control"
READ = (
    "A line is a method: what it reaches, what its control reaches on the same pictures, and the"
    " difference, taken picture by picture, with a 95 % interval (bootstrap-t over pictures). It is"
    " ahead if the interval lies on the good side of 0, behind if it lies on the other, and else"
    f" not told apart; of fewer than {LEAST} pictures nothing is told apart. Intervals are not"
    " corrected for how many lines there are: of twenty methods that are no better than their"
    " controls, one is expected to be ahead or behind. To be ahead of a control is the least that a"
    " method can be asked, and lines of different questions are not to be set beside each other."
)


@dataclass(frozen=True, eq=False)
class ShootoutReport(StudyReport):
    """What the shoot-out wrote.

    Attributes:
        table: study and the columns of `contests.judged`, a row a method.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)


def reproduce(
    model: HookedModel | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "shootout",
    *,
    studies: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> ShootoutReport:
    """Run the studies that compare methods, and put every method beside its control.

    Args:
        data: what `mmlens.dataset` takes, for all studies; by default pictures of the bundled
            world, as many as each study takes (`STUDIES`).
        out: the folder that is written.
        studies: names of `STUDIES`; by default all. What one cannot ask of this model or these
            data is told in its place.
        draws, seed: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: no study could be asked.
        CapabilityError: the model puts no pictures before a language model.
        SweepError, CheckpointError: the folder holds another shoot-out.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder, samples = path(out, "out"), None if data is None else dataset(data)
    names = list(STUDIES) if studies is None else several(studies, "studies")
    names = [choice(name, "studies", tuple(STUDIES)) for name in names]
    loaded = opened(model)
    require(loaded, "logits", "pictures")
    how: dict[str, Any] = {"draws": draws, "seed": seed, "resume": flag(resume, "resume"),
                           "progress": flag(progress, "progress")}  # fmt: skip
    parts, tables, contests, left_out = [], [], [], {}
    for name in names:
        try:
            report = STUDIES[name].run(loaded, samples, folder / name, **how)
        except (SweepError, CheckpointError):  # a folder of other pictures or options
            raise
        except MMLensError as error:
            left_out[name] = str(error)
            continue
        for at, contest in enumerate(report.contests, 1):
            found = judged(contest, draws=draws, seed=seed)
            tables.append(found.assign(study=name))
            contests.append(contest)
            parts.append(_part(f"{name}-{at}", contest, found, name))
    if not tables:
        told = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ExperimentError(f"No study of the shoot-out could be asked. {told}")
    table: Any = pd.concat(tables, ignore_index=True)[["study", *COLUMNS]]
    write_whole(folder / "shootout.csv", table.to_csv(index=False))
    on = "pictures of the bundled world" if samples is None else samples.name
    lead = f"{loaded.name} on {on}: {len(table)} lines of {table['study'].nunique()} studies."
    about = {**provenance(loaded), "data": on, "draws": draws, "seed": seed}
    about |= {f"left out: {name}": why for name, why in left_out.items()}
    frame = framed("shootout", TITLE, lead, READ, "", about, command, headline=_headline(table))
    done = write_study(frame, parts, folder, results, contests)
    return ShootoutReport(
        done.page, done.results, done.verdicts, done.sections, table, contests=done.contests
    )


def _part(key: str, contest: Contest, found: pd.DataFrame, study: str) -> Part:
    """The lines of one contest."""
    sides = dict(zip(found["method"].tolist(), found["beats"].tolist(), strict=True))
    ahead = [str(name) for name, side in sides.items() if side is True]
    behind = [str(name) for name, side in sides.items() if side is False]
    says = f"Ahead of the control: {', '.join(ahead) or 'none'}."
    says += f" Behind it: {', '.join(behind)}." if behind else ""
    gaps: Any = pd.DataFrame({"panel": "difference", "arm": found["method"], "mean": found["gap"],
                              "low": found["gap low"], "high": found["gap high"],
                              "n": found["n"]})  # fmt: skip
    arms = {str(one): str(one) for one in found["method"]}
    good = "more" if contest.better == "more" else "less"
    draw = partial(strips, gaps, arms, f"Difference to the control, {good} is better",
                   "with 95 % intervals")  # fmt: skip
    command = f"mmlens reproduce {study.replace('_', '-')}"
    how = f"Measured is {contest.measure}; {good} is better. The study: {command}."
    return Part(key, contest.question, how, says, table=contest_table(found), summary=found,
                draw=draw, name=contest.question, numbered=False)  # fmt: skip


def _headline(table: pd.DataFrame) -> str:
    """How many lines are ahead of their controls, in a sentence."""
    sides = table["beats"].tolist()
    ahead, behind = sides.count(True), sides.count(False)
    return (
        f"{ahead} of {len(sides)} lines are ahead of their controls, {behind} behind,"
        f" {len(sides) - ahead - behind} not told apart"
    )
