"""`mmlens reproduce dictionaries` and `projection`: what units and vectors say of one known thing.

mmlens reproduce dictionaries                              # trains one on the bundled world
mmlens reproduce dictionaries --dictionary runs/sae --data coco:FOLDER --out runs/judged
    mmlens reproduce projection --model smol --data coco:FOLDER --out runs/projection
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.reproduce import Text, reproduce_app
from mmlens.cli.reproduce_studies import Anew, Draws, Model, Out, Results, Seed, known, told
from mmlens.cli.written_command import written


@reproduce_app.command("projection")
def projection_command(
    model: Model = "pictos",
    data: Annotated[Text, known("300 scenes of one of 20 things of the bundled world")] = None,
    out: Out = Path("projection"),
    results: Results = None,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Cross-Modal Projection Doesn't Really Project Attributes (Verma et al. 2024)."""
    command = written("projection", projection_command, locals())
    from mmlens.papers import projection

    told(projection.reproduce, as_asked(model, device, dtype), data, out, results, anew, command,
         as_json, draws=draws, seed=seed)  # fmt: skip


@reproduce_app.command("dictionaries")
def dictionaries_command(
    model: Model = "pictos",
    data: Annotated[Text, known("300 scenes of one of 20 things of the bundled world")] = None,
    out: Out = Path("dictionaries"),
    results: Results = None,
    dictionary: Annotated[
        Path | None,
        typer.Option(help="Folder of a dictionary.", show_default="one is trained in minutes"),
    ] = None,
    at: Annotated[
        Text,
        typer.Option(
            help="The hook name that it reads.",
            show_default="its own, or blocks.4.hook_resid_post",
        ),
    ] = None,
    train_data: Annotated[
        Text,
        typer.Option(
            help="Pictures that it is trained on.", show_default="300 scenes of the bundled world"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the training.", show_default="250")
    ] = None,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Units of a sparse autoencoder, judged by a known truth (Gao 2024; Pach 2025)."""
    command = written("dictionaries", dictionaries_command, locals())
    from mmlens.papers import dictionaries

    recipe = None if steps is None else {"steps": steps}
    told(dictionaries.reproduce, as_asked(model, device, dtype), data, out, results, anew, command,
         as_json, dictionary=dictionary, at=at, train_data=train_data, recipe=recipe, draws=draws,
         seed=seed)  # fmt: skip
