"""`alignment`: how picture and words lie to each other in one model, as one page.

OUT/sweeps/...       cosines and skips, picture by picture: a run that was stopped goes on
OUT/report.html, OUT/results.md, OUT/tables/I1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.spec import dataset
from mmlens.model.provenance import about as provenance
from mmlens.papers.alignment.alignment_claims import CLAIMS, contest, judged
from mmlens.papers.alignment.questions.cosines import mean_cosines
from mmlens.papers.alignment.questions.skips import skipped_mlps
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.values.arguments import count, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:40"
TITLE = "Implicit Multimodal Alignment, measured again"
CITED = (
    "Shukor and Cord (2024), Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to"
    " Multimodal Inputs, arXiv:2405.16700"
)
READ = (
    "Intervals are 95 % bootstrap intervals over pictures; differences are taken picture by"
    " picture. A share that is lost is a ratio of means. “Holds”, “fails” and “undecided” are"
    " computed from the intervals by the rule that stands under the claim. That models of a higher"
    " alignment hallucinate less is a claim about many models, and is not asked here."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "alignment",
    *,
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
    """Measure the cosines and the skips of every picture, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes; pictures whose caption names something count.
        out: the folder that is written.
        prompt, noun, max_new_tokens: as in the questions.
        draws, seed: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder, samples = path(out, "out"), dataset(data)
    loaded = opened(model)
    asked = {"prompt": prompt, "noun": noun, "max_new_tokens": max_new_tokens}
    tables = swept(
        {mean_cosines: asked, skipped_mlps: asked},
        loaded, samples, folder, seed=seed, resume=resume, progress=progress,
    )  # fmt: skip
    parts = [judged(key, tables, draws=draws, seed=seed) for key in CLAIMS]
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers) on {samples.name}: of {len(samples)}"
        f" pictures {answered(tables[mean_cosines.__name__])} have a caption that names something."
    )
    about = {**provenance(loaded), "data": samples.name, "draws": draws, "seed": seed}
    frame = framed("alignment", TITLE, lead, READ, CITED, about, command)
    found = [contest(tables[skipped_mlps.__name__])]
    return write_study(frame, parts, folder, results, found)
