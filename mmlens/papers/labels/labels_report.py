"""`labels`: what a model names of a picture by labels and by its caption, as one page.

OUT/sweeps/named_things     picture by picture: a run that was stopped goes on where it was
OUT/report.html, OUT/results.md, OUT/tables/L1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.bundled import pictos
from mmlens.datasets.spec import dataset
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.hallucination.questions.said_things import plain
from mmlens.papers.labels.labels_claims import CLAIMS, contest, judged
from mmlens.papers.labels.questions.label_names import LABEL_PROMPT, named_things
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.values.arguments import count, path

if TYPE_CHECKING:
    from mmlens.metrics.vocabulary import Vocabulary
    from mmlens.model.hooked_vlm import HookedVLM

PICTURES, THINGS = 60, 3
"""Of the bundled world by default: pictures of three things."""
TITLE = "Object Recognition as Next Token Prediction, measured again"
CITED = (
    "Yue, Chen, Geiping, Goldstein and Lim (2024), Object Recognition as Next Token Prediction,"
    " arXiv:2312.02142"
)
READ = (
    "Intervals are 95 % bootstrap intervals over pictures; differences are taken picture by"
    " picture. “Holds”, “fails” and “undecided” are computed from the intervals by the rule that"
    " stands under the claim. The paper trains a decoder on lists of names and scores them by the"
    " similarity of their meanings: its numbers are not to be set beside a recall of known things."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "labels",
    *,
    k: int = 10,
    label_prompt: str = LABEL_PROMPT,
    prompt: str = PROMPT,
    vocabulary: Vocabulary | None = None,
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Read the labels and the caption of every picture, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes, with things that are known; by default pictures of three
            things of the bundled world.
        out: the folder that is written.
        k, label_prompt, prompt, max_new_tokens: as in `named_things`.
        vocabulary: which words name which things; by default those of the bundled world.
        draws, seed: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder = path(out, "out")
    samples = pictos("held_out", PICTURES, things=THINGS) if data is None else dataset(data)
    loaded = opened(model)
    asked = {"k": k, "label_prompt": label_prompt, "prompt": prompt,
             "max_new_tokens": max_new_tokens}  # fmt: skip
    asked |= {} if vocabulary is None else {"vocabulary": plain(vocabulary)}
    tables = swept({named_things: asked}, loaded, samples, folder, seed=seed, resume=resume,
                   progress=progress)  # fmt: skip
    table = tables[named_things.__name__]
    parts = [judged(key, table, draws=draws, seed=seed) for key in CLAIMS]
    lead = (
        f"{loaded.name} on {samples.name}: of {len(samples)} pictures {answered(table)} have things"
        f" that are known. At most {k} labels after “{label_prompt}”."
    )
    about = {**provenance(loaded), "data": samples.name, "labels": k, "draws": draws, "seed": seed}
    frame = framed("labels", TITLE, lead, READ, CITED, about, command)
    return write_study(frame, parts, folder, results, [contest(table)])
