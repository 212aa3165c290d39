"""`frozen-block`: a frozen block of a language model behind an encoder, on one page of claims.

OUT/features, OUT/trainings      what was computed: a run that was stopped goes on
OUT/report.html, OUT/results.md, OUT/tables/B1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.spec import dataset
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.frozen_block.block_answers import answers
from mmlens.papers.frozen_block.block_claims import CLAIMS, FIRST_LOOK, contests, judged
from mmlens.papers.frozen_block.block_pictures import labelled, names_of, world_pictures
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, flag, number, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

TITLE = "A frozen block of a language model as a visual layer, measured again"
CITED = (
    "Pang, Xie, Man and Wang (2024), Frozen Transformers in Language Models Are Effective Visual"
    " Encoder Layers, arXiv:2310.12973"
)
READ = (
    "Intervals are 95 % bootstrap intervals over held-out pictures; differences are taken picture"
    " by picture, of the mean over trainings. They hold for these trainings, and not for all that"
    " could have been. “Holds”, “fails” and “undecided” are computed from the intervals by the rule"
    " that stands under the claim. The paper trains the encoder with the linears, for 300 epochs of"
    " ImageNet; here the encoder is frozen, and the training is short."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "frozen-block",
    *,
    train: int = 600,
    layer: int = -1,
    steps: int = 200,
    batch_size: int = 16,
    lr: float = 1e-3,
    trainings: int = 2,
    share: float = 0.25,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Train every arm, ask the held-out pictures, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes, with masks; pictures of one thing count. By default 800
            scenes of 96 kinds of things of the bundled world.
        out: the folder that is written.
        train: the first so many of them are learned from, the others are asked.
        layer: the block, of the language model.
        steps, batch_size, lr: of every training.
        trainings: of each arm, with seeds from `seed` on.
        share: so much of a patch must lie under the thing's mask.
        draws, seed: of the bootstrap; seed also of the trainings.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: too few pictures of one thing with a mask.
        CapabilityError: the model has no encoder, no language model, or a block that does something
            else with positions than attend. CheckpointError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    how: dict[str, Any] = {"layer": layer, "steps": steps, "batch_size": batch_size, "lr": lr,
                           "resume": flag(resume, "resume")}  # fmt: skip
    folder, samples = path(out, "out"), world_pictures() if data is None else dataset(data)
    share = number(share, "share", above=0, most=1, error=ExperimentError)
    pictures = labelled(samples, count(train, "train", error=ExperimentError))
    loaded = opened(model)
    tables = answers(
        loaded, pictures, folder, share=share, seed=seed,
        trainings=count(trainings, "trainings", error=ExperimentError),
        progress=flag(progress, "progress"), **how,
    )  # fmt: skip
    parts = [judged(key, tables, draws=draws, seed=seed) for key in CLAIMS]
    if data is None:
        parts[:2] = [replace(one, notes=[FIRST_LOOK]) for one in parts[:2]]
    at = range(loaded.cfg.n_layers)[layer]
    lead = (
        f"Block {at} of the {loaded.cfg.n_layers} of {loaded.name} behind its frozen encoder, on"
        f" {samples.name}: {len(pictures.train)} pictures of {len(set(names_of(pictures.train)))}"
        f" kinds of things are learned from, {len(pictures.held_out)} are asked; {trainings}"
        f" trainings of {steps} steps of {batch_size} pictures an arm."
    )
    about = {**provenance(loaded), "data": samples.name, "train": train, "layer": at,
             "steps": steps, "batch size": batch_size, "lr": lr, "trainings": trainings,
             "share": share, "draws": draws, "seed": seed}  # fmt: skip
    frame = framed("frozen-block", TITLE, lead, READ, CITED, about, command)
    return write_study(frame, parts, folder, results, contests=contests(tables))
