"""`projection`: what can be read off a picture before and behind the projection, as one page.

OUT/sweeps/mean_vectors     picture by picture: a run that was stopped goes on where it was
OUT/report.html, OUT/results.md, OUT/tables/P1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.one_thing import of_one_thing, things_of
from mmlens.papers.projection.projection_claims import CLAIMS, contest, judged, richness
from mmlens.papers.projection.questions.mean_places import NAMES, mean_vectors
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.sweep.sweeping import sweep
from mmlens.values.arguments import SEEDS, count, flag, number, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

TITLE = "What the projection adds, measured again"
CITED = (
    "Verma et al. (2024), Cross-Modal Projection in Multimodal LLMs Doesn't Really Project Visual"
    " Attributes to Textual Space, arXiv:2402.16832"
)
READ = (
    "Intervals are 95 % bootstrap intervals over pictures; differences are taken picture by"
    " picture. “Holds”, “fails” and “undecided” are computed from the intervals by the rule that"
    " stands under the claim. The paper fine-tunes on data of four domains, with a probe of six"
    " layers: its numbers are not to be set beside a linear probe of things. What a probe can read,"
    " the model need not use."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "projection",
    *,
    folds: int = 5,
    l2: float = 0.01,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Read the things of pictures before and behind the projection, and report what holds.

    Args:
        data: what `mmlens.dataset` takes; its pictures that show one known thing are asked, where
            at least four show that thing. By default scenes of the bundled world.
        out: the folder that is written.
        folds, l2: as in `projection_probe`.
        draws, seed: of the bootstrap, and of how pictures are divided.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: fewer than two things have pictures of their own.
        CapabilityError: the model puts no pictures before a language model.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0, most=SEEDS)
    folder, samples = path(out, "out"), of_one_thing(data)
    folds, l2 = count(folds, "folds", least=2, most=len(samples) // 2), number(l2, "l2", least=0)
    loaded = opened(model)
    require(loaded, "logits", "pictures")
    done = sweep(mean_vectors, loaded, samples, folder / "sweeps" / "mean_vectors",
                 resume=flag(resume, "resume"), progress=flag(progress, "progress"))  # fmt: skip
    vectors = {place: torch.stack([one.values for _, one in done.each(name)])
               for place, name in NAMES.items()}  # fmt: skip
    known, things = things_of(samples)
    rows = richness(vectors, things, folds=folds, l2=l2, seed=seed)
    parts = [judged(key, rows, draws=draws, seed=seed) for key in CLAIMS]
    lead = f"{loaded.name} on {len(samples)} pictures of one of {len(known)} things each."
    about = {**provenance(loaded), "data": samples.name, "folds": folds, "draws": draws,
             "seed": seed}  # fmt: skip
    frame = framed("projection", TITLE, lead, READ, CITED, about, command)
    return write_study(frame, parts, folder, results, [contest(rows)])
