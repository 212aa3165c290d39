"""`mmlens reproduce maps`: maps of relevance, judged against each other, as one page.

    mmlens reproduce maps --model pictos --data pictos:held_out:28 --out runs/maps
    mmlens reproduce maps --methods chefer --methods lrp --pictures 100 --data coco:FOLDER

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.reproduce import reproduce_app
from mmlens.cli.reproduce_studies import (
    Anew,
    Draws,
    Model,
    Out,
    Pictures,
    Results,
    Seed,
    few,
    told,
)
from mmlens.cli.written_command import written


@reproduce_app.command("maps")
def maps_command(
    model: Model = "pictos",
    data: Annotated[
        str, typer.Option(help="Pictures with masks: pictos:held_out:N or coco:FOLDER.")
    ] = "pictos:held_out:28",
    out: Out = Path("maps"),
    results: Results = None,
    pictures: Pictures = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this method, as in --methods chefer. Repeatable.",
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
    """Maps of relevance: which patches a word comes from, method against method."""
    command = written("maps", maps_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import maps

    told(maps.reproduce, as_asked(model, device, dtype), few(dataset(data), pictures), out,
         results, anew, command, as_json, methods=methods or None, draws=draws,
         seed=seed)  # fmt: skip
