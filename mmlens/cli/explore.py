"""`mmlens explore`: many pictures on one page, from a folder that they were read into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.printing import check_folder


def explore_command(
    sweep: Annotated[Path, typer.Argument(help="The folder that the pictures are read into.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Read these pictures first (or go on): pictos:held_out:200, coco:FOLDER, a folder."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="What they are read with: a name or a folder.")
    ] = "pictos",
    prompt: Annotated[
        str | None,
        typer.Option(help="The words after each picture.", show_default="A picture of"),
    ] = None,
    of: Annotated[
        list[str] | None,
        typer.Option(
            help="A text that a CLIP holds each picture against (or a class of a classifier), each"
            " given by an --of of its own.",
            show_default="the captions, or the most probable classes",
        ),
    ] = None,
    neurons: Annotated[int, typer.Option(min=1, help="How many neurons per word.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write.", show_default="SWEEP.mmlens.html, here"),
    ] = None,
    budget: Annotated[
        float, typer.Option(min=0.1, help="Megabytes of the page at most: above, it shows less.")
    ] = 20.0,
) -> None:
    """Many pictures, their captions and neurons on one page, with an index."""
    page = out or Path(f"{sweep.resolve().name}.mmlens.html")
    check_folder(page)
    from rich.console import Console

    from mmlens.datasets.spec import dataset
    from mmlens.explore.many import read_all, read_found
    from mmlens.view.explorer_page.page import explore

    if data is None:
        found = read_found(sweep)
    else:
        samples = dataset(data)  # a wrong name is told before anything heavy is loaded
        with Console(stderr=True).status(f"loading {model} ..."):
            from mmlens.families import load

            loaded = load(model)
        found = read_all(loaded, samples, sweep, prompt=prompt, of=of or None, k=neurons)
    made = explore(found.looks, found.names, tops=found.tops, title=sweep.name, budget=budget)
    made.save(page)
    if len(found.failed):
        first = found.failed.iloc[0]
        typer.echo(f"Not read: {len(found.failed)}, the first {first['sample']}: {first['error']}")
    typer.echo(f"Page: {page} of {len(found.looks)} pictures, {made.told}")
