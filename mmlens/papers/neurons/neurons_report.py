"""`neurons`: what four papers claim of their lists of neurons, on any bridge, as one page.

OUT/sweeps/silenced_lists     the table, picture by picture: a run that was stopped goes on
OUT/lists.json                the lists that were made of the pool
OUT/report.html, OUT/results.md, OUT/tables/P1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.checkpoints.bridge_json import read_json
from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.neurons.neurons_claims import CLAIMS, SOURCES, contest, judged
from mmlens.papers.neurons.pools import pool_lists
from mmlens.papers.neurons.questions.lists import silenced_lists, summary
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, flag, path
from mmlens.values.errors import writing
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:160"
POOL = 120
LISTS_FILE = "lists.json"
TITLE = "Lists of neurons of four papers, measured again"
READ = (
    "Intervals are 95 % bootstrap intervals over pictures. A share that is lost is a ratio of"
    " means: what is gone of the noun's probability, against what it was; differences are taken"
    " picture by picture. “Holds”, “fails” and “undecided” are computed from the intervals by the"
    " rule that stands under the claim. Of the papers, two count right answers to benchmarks and"
    " one compares captions: their numbers are not to be set beside shares of a probability."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "neurons",
    *,
    pool: int = POOL,
    ks: Sequence[int | float] = (10, 100, 0.02),
    drawn: int = 3,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Silence the first neurons of every list, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes, with things that are known.
        out: the folder that is written.
        pool: of the first so many pictures MINER's and MMNeuron's lists are made; the others are
            asked.
        ks, drawn, prompt, noun, max_new_tokens: as in `silenced_lists`.
        draws: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: no picture is left beside the pool.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder, samples = path(out, "out"), dataset(data)
    first, rest = _apart(samples, count(pool, "pool"))
    loaded = opened(model)
    shown = flag(progress, "progress")
    made_of = {"data": first.hash, "model": loaded.name, "prompt": prompt}
    given = _kept(folder, made_of) if flag(resume, "resume") else None
    if given is None:
        given = pool_lists(loaded, first, prompt=prompt, progress=None if shown else False)
    options = {"given": given, "ks": list(ks), "drawn": drawn, "prompt": prompt, "noun": noun,
               "max_new_tokens": max_new_tokens, "seed": seed}  # fmt: skip
    if not (resume and (folder / "sweeps").exists()):  # of another study they stay as they are
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / LISTS_FILE, json.dumps({"made_of": made_of, "lists": given}, indent=1))
    tables = swept({silenced_lists: options}, loaded, rest, folder, seed=seed, resume=resume,
                   progress=shown)  # fmt: skip
    table = tables["silenced_lists"]
    found = summary(table, draws=draws, seed=seed)
    parts = [judged(key, table, found, draws=draws, seed=seed) for key in CLAIMS]
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers of {loaded.cfg.d_mlp} units) on"
        f" {samples.name}: of {len(rest)} pictures {answered(table)} have a caption that names"
        f" something; two of the lists are made of {len(first)} others."
    )
    about = {**provenance(loaded), "data": samples.name, "pool": len(first), "draws": draws,
             "seed": seed}  # fmt: skip
    cited = "; ".join(SOURCES.values())
    frame = framed("neurons", TITLE, lead, READ, cited, about, command, several=True)
    return write_study(frame, parts, folder, results, [contest(found)])


def _kept(folder: Path, made_of: dict[str, str]) -> Any:
    """The lists that a stopped run made of the same pool, or None.

    Counting where units are above 0 hangs on the last bit for a few units, and with it on how many
    threads compute: a run that goes on must go on with its own lists.
    """
    file = folder / LISTS_FILE
    told = read_json(file) if file.is_file() else {}
    return told.get("lists") if isinstance(told, dict) and told.get("made_of") == made_of else None


def _apart(samples: Samples, pool: int) -> tuple[Samples, Samples]:
    """The pool, and the pictures that are asked."""
    if len(samples) <= pool:
        raise ExperimentError(
            f"pool={pool} takes all {len(samples)} pictures of {samples.name}: give more pictures,"
            " or a smaller pool."
        )
    return samples[:pool], samples[pool:]
