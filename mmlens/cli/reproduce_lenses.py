"""`mmlens reproduce lenses`: which lens names the thing that a patch shows?

    mmlens reproduce lenses --out runs/lenses
    mmlens reproduce lenses --model smol --data coco:FOLDER --lenses logit --lenses neighbours

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.reproduce import Text, reproduce_app
from mmlens.cli.reproduce_studies import Anew, Draws, Model, Out, Pictures, Results, Seed, few, told
from mmlens.cli.written_command import written


@reproduce_app.command("lenses")
def lenses_command(
    model: Model = "pictos",
    data: Annotated[
        Text,
        typer.Option(
            help="Pictures with masks and captions: pictos:held_out:N or coco:FOLDER.",
            show_default="pictures of one thing of the bundled world",
        ),
    ] = None,
    out: Out = Path("lenses"),
    results: Results = None,
    pictures: Pictures = None,
    pool: Annotated[
        int, typer.Option(min=1, help="Of the first so many lenses are fitted, and texts taken.")
    ] = 480,
    lenses: Annotated[
        list[str] | None,
        typer.Option(
            help="One of nearest, logit, tuned, jacobian, identity, caption, place, neighbours,"
            " centred, same, heads; may be given several times.",
            show_default="all",
        ),
    ] = None,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Lenses at the patches of one thing: what six papers claim of theirs (2020 to 2026)."""
    command = written("lenses", lenses_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import lenses as study
    from mmlens.papers.lenses.lenses_report import PICTURES, one_thing
    from mmlens.papers.lenses.questions.words_at_patches import LENSES

    most = pool + (pictures or PICTURES)
    samples = one_thing(most) if data is None else dataset(data)
    samples = few(samples, None if pictures is None else most)
    chosen = lenses or tuple(LENSES)
    how: dict[str, Any] = {"pool": pool, "lenses": chosen, "draws": draws, "seed": seed}
    told(study.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
         as_json, **how)  # fmt: skip
