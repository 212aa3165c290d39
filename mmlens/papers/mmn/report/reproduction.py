"""`mmn`: everything of the study in one call, in a folder, gone on with where it was stopped.

OUT/report.html      verdicts, figures, tables, provenance; one file
OUT/results.md       the same numbers beside the paper's, as Markdown
OUT/tables/E1.csv    the summary of each experiment
OUT/sweeps/PLAN/...  what was measured, picture by picture (`mmlens.Sweep` reads it)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.spec import dataset
from mmlens.metrics.counts import word_overlap_f1
from mmlens.metrics.vocabulary import pictos_vocabulary
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.mmn.report.findings import finding
from mmlens.papers.mmn.report.outcomes import Outcome, Study, measure
from mmlens.papers.mmn.report.paper import TITLE
from mmlens.papers.mmn.report.plan import FULL, QUICK, OpenChoices, Plan
from mmlens.papers.mmn.report.report_page import page
from mmlens.papers.mmn.report.results import results as as_markdown
from mmlens.papers.mmn.report.selection import choose
from mmlens.papers.mmn.report.sheets import sheets
from mmlens.papers.mmn.report.told import TITLES, Finding, Setting
from mmlens.papers.scoring import Compare, Scorer, against_things, default_scorers
from mmlens.values.arguments import count, instance
from mmlens.values.errors import writing
from mmlens.values.whole_files import write_whole
from mmlens.view.style.printed import one_line

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:4000"


@dataclass(frozen=True, eq=False)
class Report:
    """What `mmn` wrote and found.

    Attributes:
        page, results: OUT/report.html and OUT/results.md.
        verdicts: experiment, claim, holds (None: undecided), says.
        findings: of every experiment, in the order of the page.
        measured: by experiment, with the summaries.
    """

    page: Path
    results: Path
    verdicts: pd.DataFrame = field(repr=False)
    findings: list[Finding] = field(repr=False)
    measured: Mapping[str, Outcome] = field(repr=False)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "mmn",
    *,
    quick: bool = False,
    plan: Plan | None = None,
    choices: OpenChoices | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    compare: Mapping[str, Compare] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    resume: bool = True,
    progress: bool = True,
    command: str | None = None,
) -> Report:
    """Measure E1 to E7, the attribution methods and the readings of the paper, and report them.

    Args:
        data: `Samples`, or what `mmlens.dataset` takes.
        out: the folder; a run that was stopped goes on in it.
        quick: few pictures and wide intervals (`plan.QUICK` instead of `plan.FULL`).
        plan: how many pictures each question is asked about, instead of these two.
        choices: how the paper is read where it is open.
        scorers: of E1 and E2, by name (see `mmlens.papers.scoring`); by default the offline
            word overlap and, where the things are those of the bundled world, its score.
        compare: of E5, how a new caption is compared with the old one.
        results: write the Markdown here too.
        seed: of what is drawn at random, 0 or more.
        draws: of the bootstrap.
        resume: False begins anew and deletes what the folder holds.
        command: what the Markdown says that it was written by; by default the command line of this
            model, without other options.

    Raises:
        ArgumentError: an option is none that there is.
        WriteError: the folder cannot be written. SweepError: it holds the sweeps of another
            model, other data or other options, or a picture failed.
    """
    from mmlens.families import load
    from mmlens.model.hooked_vlm import HookedVLM

    count(seed, "seed", least=0)
    count(draws, "draws", most=MOST)
    if plan is not None:
        instance(plan, "plan", Plan, "mmlens.papers.mmn.QUICK, or a Plan of your own")
    if choices is not None:
        instance(choices, "choices", OpenChoices, "a mmlens.papers.mmn.report.OpenChoices")
    plan, choices = plan or (QUICK if quick else FULL), choices or OpenChoices()
    folder, samples = made(Path(out)), dataset(data)
    if results is not None:
        made(Path(results).parent)
    tell = _teller(progress)
    bridge = load(model) if isinstance(model, (str, Path)) else model
    instance(bridge, "model", HookedVLM, "a name, a folder or what mmlens.load returns")
    tell(f"looking through {min(plan.scan, len(samples))} pictures of {samples.name}")
    chosen = choose(samples, plan)
    offline = scorers is None
    study = Study(
        bridge, samples, plan, choices, chosen, folder / "sweeps" / plan.name,
        scorers if scorers is not None else offline_scorers(chosen.known),
        compare or {"word overlap F1": word_overlap_f1},
        seed, draws, resume, progress, tell,
    )  # fmt: skip
    found = {one.key: one for one in measure(study)}
    tell("writing the report")
    found = {key: found[key] for key in TITLES}
    return _write(study, found, offline, folder, results, command or _command(study))


def _command(study: Study) -> str:
    quick = " --quick" * (study.plan.name == "quick")
    return f"mmlens reproduce mmn --model {study.model.name}{quick}"


def offline_scorers(known: frozenset[str]) -> dict[str, Scorer]:
    """The word overlap with captions and, if the bundled world has all these names, its score."""
    words = pictos_vocabulary().objects
    ours = bool(known) and all(name in words for name in known)
    return default_scorers() | ({"world score": against_things()} if ours else {})


def _write(
    study: Study,
    found: Mapping[str, Outcome],
    offline: bool,
    folder: Path,
    copy: str | Path | None,
    command: str,
) -> Report:
    model, samples = study.model, study.samples
    size = model.cfg.n_layers, model.cfg.n_layers * model.cfg.d_mlp
    setting = Setting(offline, str(model.provenance.get("family", "")), size[1], size[0])
    told = [finding(one, setting) for one in found.values()]
    about = _about(study)
    words: dict[str, Any] = {"title": TITLE + ", measured again", "lead": _lead(study)}
    shown = sheets(found["E7"], model, samples)
    text = as_markdown(told, **words, command=command, about=about)
    html = page(told, found, shown, **words, about=about)
    tables = made(folder / "tables")
    for key, one in found.items():
        if len(one.summary):
            write_whole(tables / f"{key}.csv", one.summary.to_csv(index=False))
    for path in (folder / "results.md", *([Path(copy)] if copy is not None else [])):
        write_whole(path, text)
    write_whole(folder / "report.html", html)
    columns = ["experiment", "claim", "holds", "says"]
    verdicts = [asdict(one.verdict) for one in told if one.verdict is not None]
    table = pd.DataFrame(verdicts, columns=columns).astype({"holds": object})
    return Report(folder / "report.html", folder / "results.md", table, told, found)


def _lead(study: Study) -> str:
    size = study.model.cfg.n_layers, study.model.cfg.d_mlp
    told = (
        f"{study.model.name} ({size[0]} layers of {size[1]:,} units) on {study.samples.name},"
        f" {len(study.samples):,} pictures to take from."
    )
    if study.plan.name == "quick":
        told += " A quick run: few pictures, wide intervals, verdicts that may turn."
    return told


def _about(study: Study) -> dict[str, Any]:
    """Provenance by name, each value as one line."""
    told = provenance(study.model)
    numbers = {k: v for k, v in asdict(study.plan).items() if k not in ("name", "ks", "methods")}
    shares = ", ".join(f"{k:.5f}" for k in study.plan.ks)
    return {
        **{name.replace("_", " "): one_line(value) for name, value in told.items()},
        "data": f"{study.samples.name}, {len(study.samples)} pictures, hash {study.samples.hash}",
        f"plan ({study.plan.name})": one_line(numbers),
        "shares of units silenced": shares,
        "choices": one_line(asdict(study.choices)),
        "metrics": ", ".join(study.scorers),
        "bootstrap": f"studentised, {study.draws} draws, seed {study.seed}",
    }


def made(folder: Path) -> Path:
    """A folder, made if it isn't there."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _teller(shown: bool) -> Callable[[str], None]:
    if not shown:
        return lambda line: None
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return lambda line: console.print(line, markup=False, style="bold")
