"""`mmlens reproduce concepts` and `circuits`: what later papers' methods claim, a page each.

    mmlens reproduce concepts --data pictos:held_out:3000 --out runs/concepts
    mmlens reproduce circuits --data coco:FOLDER --pictures 100 --out runs/circuits

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
    known,
    told,
)
from mmlens.cli.written_command import written


@reproduce_app.command("concepts")
def concepts_command(
    model: Model = "pictos",
    data: Annotated[str, known()] = "pictos:held_out:1500",
    out: Out = Path("concepts"),
    results: Results = None,
    pictures: Pictures = None,
    changed: Annotated[
        str | None,
        typer.Option(
            help="A model made of this one; by default one that calls nouns by another's name.",
            show_default=False,
        ),
    ] = None,
    nouns: Annotated[
        str, typer.Option(help="How many of the most frequent nouns, or which: dog,bus,cat.")
    ] = "12",
    directions: Annotated[int, typer.Option(min=2, help="Of each dictionary.")] = 20,
    noun: Noun = "auto",
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Concepts of words and their shifts (CoX-LMM 2024; Khayatan et al. 2025)."""
    command = written("concepts", concepts_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import concepts

    samples = few(dataset(data), pictures)
    which = int(nouns) if nouns.isdigit() else nouns.split(",")
    other = None if changed is None else as_asked(changed, device, dtype)
    how: dict[str, Any] = {"changed": other, "nouns": which, "n": directions, "noun": noun,
                           "draws": draws, "seed": seed}  # fmt: skip
    told(concepts.reproduce, as_asked(model, device, dtype), samples, out, results, anew,
         command, as_json, **how)  # fmt: skip


@reproduce_app.command("circuits")
def circuits_command(
    model: Model = "pictos",
    data: Annotated[
        str, typer.Option(help="Pictures: pictos:held_out:N, coco:FOLDER or a folder.")
    ] = "pictos:held_out:32",
    out: Out = Path("circuits"),
    results: Results = None,
    pictures: Pictures = None,
    noun: Noun = "auto",
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Circuits and attribution graphs, silenced (CLA 2024; Ameisen et al. 2025)."""
    command = written("circuits", circuits_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import circuits

    samples = few(dataset(data), pictures)
    told(circuits.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
         as_json, noun=noun, draws=draws, seed=seed)  # fmt: skip
