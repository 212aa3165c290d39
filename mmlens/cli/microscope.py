"""`mmlens microscope`: a static site of every unit of a model's tower."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.values.errors import MMLensError


def microscope_command(
    model: Annotated[str, typer.Argument(help="A name that `mmlens models` lists, or a folder.")],
    data: Annotated[
        str, typer.Option(help="The pictures: pictos:held_out:2000, coco:FOLDER, a folder.")
    ] = "pictos:held_out:2000",
    out: Annotated[Path, typer.Option(help="The folder of the site.")] = Path("site"),
    tower: Annotated[str | None, typer.Option(help="vision, or lm.", show_default="vision")] = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(help="A layer, from 0; may be given several times.", show_default="all"),
    ] = None,
    tops: Annotated[int, typer.Option(min=1, help="Top pictures of each unit.")] = 9,
    chunk: Annotated[
        int, typer.Option(min=1, help="Pictures whose work an interruption costs.")
    ] = 32,
) -> None:
    """A site of every unit: what excites it, what it is like, what it feeds. It can be stopped."""
    if os.path.lexists(out) and not os.path.isdir(out):
        raise MMLensError(f"{str(out)!r} is no folder: give --out a folder for the site.")
    from rich.console import Console

    from mmlens.datasets.spec import dataset

    samples = dataset(data)  # a wrong name is told before anything heavy is loaded
    with Console(stderr=True).status(f"loading {model} ..."):
        from mmlens.explore.microscope import microscope
        from mmlens.families import load

        loaded: Any = load(model)
    page = microscope(
        loaded, samples, out, tower=tower, layer=layer or None, k=tops, chunk=chunk, progress=True
    )
    unit = "L0.0" if tower == "lm" else "vision.L0.0"
    typer.echo(f"Site: {page}; a unit is {page.name}#{unit}")
