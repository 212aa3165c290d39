"""`mmlens reproduce frozen-block`: a frozen block of a language model as a layer of patches.

    mmlens reproduce frozen-block --model pictos --out runs/frozen-block
    mmlens reproduce frozen-block --model smol --data coco:FOLDER --train 2000 --layer 20

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.printing import tell_claims
from mmlens.cli.reproduce import Text, in_other_words, reproduce_app
from mmlens.cli.reproduce_studies import Anew, Draws, Model, Out, Pictures, Results, Seed
from mmlens.cli.written_command import written


@reproduce_app.command("frozen-block")
def frozen_block_command(
    model: Model = "pictos",
    data: Annotated[
        Text,
        typer.Option(
            help="Pictures with masks: pictos:held_out:N or coco:FOLDER; those of one thing count.",
            show_default="800 scenes of one thing, of 96 kinds, of the bundled world",
        ),
    ] = None,
    out: Out = Path("frozen-block"),
    results: Results = None,
    pictures: Pictures = None,
    train: Annotated[int, typer.Option(min=1, help="So many are learned from.")] = 600,
    layer: Annotated[int, typer.Option(help="The block; -1 is the last.")] = -1,
    steps: Annotated[int, typer.Option(min=1, help="Of every training.")] = 200,
    trainings: Annotated[int, typer.Option(min=1, help="Of each arm, with other seeds.")] = 2,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="So much of a patch must lie on the thing.")
    ] = 0.25,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Frozen Transformers in LMs Are Effective Visual Encoder Layers (Pang et al. 2024)."""
    command = written("frozen-block", frozen_block_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import frozen_block
    from mmlens.papers.frozen_block.block_pictures import world_pictures
    from mmlens.values.errors import CheckpointError

    if data is None:  # without --pictures they are those of the study
        samples = None if pictures is None else world_pictures(pictures)
    else:
        samples = dataset(data)
        samples = samples if pictures is None else samples[:pictures]
    how: dict[str, Any] = {"train": train, "layer": layer, "steps": steps, "trainings": trainings,
                           "share": share, "draws": draws, "seed": seed}  # fmt: skip
    try:
        report = frozen_block.reproduce(
            as_asked(model, device, dtype), samples, out, results=results, resume=not anew,
            command=command, **how,
        )  # fmt: skip
    except CheckpointError as error:
        raise in_other_words(error) from error
    verdicts = [one.verdict for one in report.sections]
    tell_claims(verdicts, report.page, results or report.results, as_json)
