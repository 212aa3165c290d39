"""`mmlens reproduce editing`: words rewritten and words taken out, as one page of claims.

    mmlens reproduce editing --model pictos --data pictos:held_out:240 --out runs/editing
    mmlens reproduce editing --model smol --data coco:FOLDER --pictures 400 --layer 12 --layer 13

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.reproduce import reproduce_app
from mmlens.cli.reproduce_studies import (
    Anew,
    Draws,
    Model,
    Noun,
    Out,
    Pictures,
    Results,
    Seed,
    few,
    told,
)
from mmlens.cli.written_command import written


@reproduce_app.command("editing")
def editing_command(
    model: Model = "pictos",
    data: Annotated[
        str, typer.Option(help="Pictures: pictos:held_out:N, coco:FOLDER or a folder.")
    ] = "pictos:held_out:240",
    out: Out = Path("editing"),
    results: Results = None,
    pictures: Pictures = None,
    nouns: Annotated[int, typer.Option(min=1, help="Nouns that are rewritten, at most.")] = 60,
    sequences: Annotated[
        int, typer.Option(min=1, help="Sequences of nouns that are rewritten, at most.")
    ] = 8,
    edits: Annotated[int, typer.Option(min=2, help="Nouns of a sequence.")] = 4,
    pool: Annotated[
        int, typer.Option(min=0, help="The first so many pictures are to be preserved.")
    ] = 30,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            help="A layer that NSE changes, as in --layer 4 --layer 5.",
            show_default="from the half of the depth to three quarters",
        ),
    ] = None,
    noun: Noun = "auto",
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Words rewritten and taken out (Pan et al. 2024; NSE and PROJECTAWAY, Jiang et al. 2025)."""
    command = written("editing", editing_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import editing

    samples = few(dataset(data), pictures)
    how: dict[str, Any] = {
        "nouns": nouns, "sequences": sequences, "edits": edits, "pool": pool,
        "layer": layer or None, "noun": noun, "draws": draws, "seed": seed,
    }  # fmt: skip
    told(editing.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
          as_json, **how)  # fmt: skip
