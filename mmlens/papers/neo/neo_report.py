"""`neo`: the paper's claims about a thing's patches, measured on any bridge, as one page.

OUT/sweeps/...       the three tools' tables, picture by picture: a run that was stopped goes on
OUT/report.html, OUT/results.md, OUT/tables/N1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.spec import dataset
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, LEAST, MOST
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.neo.neo_claims import JUDGES, contests, unmeasured
from mmlens.papers.neo.questions.object_tokens import token_ablations
from mmlens.papers.neo.questions.patch_words import word_shares
from mmlens.papers.neo.questions.windows import window_effects
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.study_report import Part
from mmlens.papers.swept_questions import answered, swept
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:40"
TITLE = "Towards Interpreting Visual Information Processing, measured again"
CITED = (
    "Neo, Ong, Torr, Geva, Krueger and Barez (2025), Towards Interpreting Visual Information"
    " Processing in Vision-Language Models, arXiv:2410.07149"
)
READ = (
    "Intervals are 95 % bootstrap intervals over pictures. A share that is lost is a ratio of"
    " means: what is left of the noun's probability, against what it was. “Holds”, “fails” and"
    " “undecided” are computed from the intervals by the rule that stands under the claim."
    f" Of fewer than {LEAST} pictures no claim is decided."
)
PAPER = (
    "The paper's numbers are about answers that change, of LLaVA on chosen photographs: they are"
    " not to be set beside shares of a probability."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "neo",
    *,
    share: float = 0.01,
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
    """Ask the three tools of every picture, and report what holds.

    Args:
        data: what `mmlens.dataset` takes, with masks; pictures whose caption names one masked thing
            count.
        out: the folder that is written.
        share, prompt, noun, max_new_tokens: as in the questions.
        draws: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder, samples = path(out, "out"), dataset(data)
    loaded = opened(model)
    asked = {"share": share, "prompt": prompt, "noun": noun, "max_new_tokens": max_new_tokens}
    drawn = {**asked, "seed": seed}
    questions = {token_ablations: drawn, word_shares: asked, window_effects: drawn}
    tables = swept(questions, loaded, samples, folder, seed=seed, resume=resume, progress=progress)
    parts = [_judged(key, tables, draws=draws, seed=seed) for key in JUDGES]
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers) on {samples.name}: of {len(samples)}"
        f" pictures {answered(tables[token_ablations.__name__])} have a caption that names one"
        " thing with a mask, and room beside it."
    )
    about = {**provenance(loaded), "data": samples.name, "share of a patch": share,
             "draws": draws, "seed": seed}  # fmt: skip
    frame = framed("neo", TITLE, lead, f"{READ} {PAPER}", CITED, about, command)
    return write_study(frame, parts, folder, results, contests(tables))


def _judged(key: str, tables: dict[str, pd.DataFrame], **how: Any) -> Part:
    name, judge = JUDGES[key]
    try:
        return judge(tables[name], **how)
    except ExperimentError as error:
        return unmeasured(key, str(error))
