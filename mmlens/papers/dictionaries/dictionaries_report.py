"""`dictionaries`: whether a dictionary's units are about one thing, as one page.

OUT/dictionary            the dictionary, where it is trained here
OUT/sweeps/unit_peaks     the largest activation of every unit, picture by picture
OUT/report.html, OUT/results.md, OUT/tables/S2.csv, ...       as in `mmlens.papers.study_folder`

Training and sweep go on where they were stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmlens.checkpoints.dictionaries.dictionary_files import load_dictionary
from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.dictionaries.dictionaries_claims import judged
from mmlens.papers.dictionaries.questions.peaks import KINDS, the_dictionary, unit_peaks
from mmlens.papers.one_thing import of_one_thing, scenes, things_of
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.tables import ExperimentError
from mmlens.sweep.sweeping import sweep
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.train.dictionaries.dictionary_figures import dictionary_figures
from mmlens.train.dictionaries.fit_dictionary import fit_dictionary
from mmlens.values.arguments import count, flag, path

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

TRAINED_ON, HELD_OUT = 300, 40
"""Scenes of few things, so that each is seen often in a training of minutes; and those that the
figures are taken of."""
AT = "blocks.4.hook_resid_post"
RECIPE: dict[str, Any] = {"kind": "batchtopk", "units": 1024, "k": 16, "steps": 250, "lr": 2e-3,
                          "batch_size": 512, "dead_after": 30_000, "buffer": 300}  # fmt: skip
TITLE = "Units of a dictionary, judged by a known truth"
CITED = (
    "Gao et al. (2024), Scaling and evaluating sparse autoencoders, arXiv:2406.04093; Pach et al."
    " (2025), Sparse Autoencoders Learn Monosemantic Features in Vision-Language Models,"
    " arXiv:2504.02821"
)
READ = (
    "A unit's activation on a picture is its largest on a patch. Means over units have 95 %"
    " intervals over units, comparisons thing by thing over things. “Holds”, “fails” and"
    " “undecided” are computed by the rule that stands under the claim."
)


def reproduce(
    model: HookedModel | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "dictionaries",
    *,
    dictionary: Dictionary | str | Path | None = None,
    at: str | None = None,
    train_data: Any = None,
    recipe: dict[str, Any] | None = None,
    prompt: str = "A picture of",
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Train a dictionary, or take one, and report whether its units are about one thing.

    Args:
        data: what `mmlens.dataset` takes; its pictures that show one known thing judge the units,
            where at least four show that thing. By default scenes of the bundled world.
        out: the folder that is written.
        dictionary: what `mmlens.load_dictionary` returns or takes; by default one is trained.
        at: the hook name that it reads; by default its own, or AT of the one that is trained.
        train_data: pictures that it is trained on; by default scenes of the bundled world.
        recipe: options of `train.fit_dictionary`, in the place of RECIPE's.
        prompt: words between a picture and its caption, of the loss.
        draws, seed: of the intervals, and of the random directions.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: fewer than two things have pictures of their own, or data without
            `train_data` or a dictionary.
        SweepError, CheckpointError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder, go_on, shown = path(out, "out"), flag(resume, "resume"), flag(progress, "progress")
    loaded = opened(model)
    samples, held_out = of_one_thing(data), _held_out(data)
    if dictionary is None:
        if data is not None and train_data is None:
            raise ExperimentError(
                "data= judges the units, and there is nothing to train a dictionary on: give"
                " train_data=, or dictionary=."
            )
        seen = scenes("train", TRAINED_ON) if train_data is None else dataset(train_data)
        given = fit_dictionary(
            loaded, seen, at=at or AT, out=folder / "dictionary", batch=20, seed=seed,
            resume=go_on, progress=None if shown else False, **{**RECIPE, **(recipe or {})},
        ).dictionary  # fmt: skip
    else:
        given = dictionary if isinstance(dictionary, Dictionary) else load_dictionary(dictionary)
    attached = loaded.attach(given, at)
    place = the_dictionary(attached)
    figures = dictionary_figures(loaded, given, held_out, at=place.at, prompt=prompt, batch=20)
    done = sweep(unit_peaks, attached, samples, folder / "sweeps" / "unit_peaks",
                 options={"seed": seed}, resume=go_on, progress=shown)  # fmt: skip
    peaks = {kind: torch.stack([one.values for _, one in done.each(name)])
             for kind, name in KINDS.items()}  # fmt: skip
    known, things = things_of(samples)
    parts, contest = judged(figures, peaks, things, draws=draws, seed=seed)
    lead = (
        f"{loaded.name}, a dictionary of {given.n_units} units at {place.at}, judged by"
        f" {len(samples)} pictures of one of {len(known)} things."
    )
    about = {**provenance(attached), "data": samples.name, "figures of": held_out.name,
             "draws": draws, "seed": seed}  # fmt: skip
    frame = framed("dictionaries", TITLE, lead, READ, CITED, about, command, several=None)
    return write_study(frame, parts, folder, results, [contest])


def _held_out(data: Any) -> Samples:
    """The pictures that the figures are taken of."""
    return scenes("held_out", HELD_OUT) if data is None else dataset(data)[:HELD_OUT]
