"""`mmlens explore`: many pictures on one page, from a folder that they were read into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.printing import check_folder, print_json
from mmlens.values.errors import ArgumentError


def explore_command(
    sweep: Annotated[
        Path,
        typer.Argument(
            help="A folder for what is read of the pictures, or one that holds it already; never"
            " the folder of the pictures."
        ),
    ],
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
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Many pictures, their captions and neurons on one page, with an index."""
    page = out or Path(f"{sweep.resolve().name}.mmlens.html")
    check_folder(page)
    _check_apart(sweep, data)
    from rich.console import Console

    from mmlens.datasets.spec import dataset
    from mmlens.explore.many import read_all, read_found
    from mmlens.view.explorer_page.page import explore

    if data is None:
        found = read_found(sweep)
    else:
        samples = dataset(data)  # a wrong name is told before anything heavy is loaded
        with Console(stderr=True).status(f"loading {model} ..."):
            asked = loaded(model, device, dtype)
        found = read_all(asked, samples, sweep, prompt=prompt, of=of or None, k=neurons)
    made = explore(found.looks, found.names, tops=found.tops, title=sweep.name, budget=budget)
    made.save(page)
    if as_json:
        told = {"page": str(page), "sweep": str(sweep), "pictures": found.names}
        print_json({**told, "failed": found.failed})
        return
    if len(found.failed):
        first = found.failed.iloc[0]
        typer.echo(f"Not read: {len(found.failed)}, the first {first['sample']}: {first['error']}")
    typer.echo(f"Page: {page} of {len(found.looks)} pictures, {made.told}")


def _check_apart(sweep: Path, data: str | None) -> None:
    """The pictures' folder is not written to.

    Raises:
        ArgumentError: the folder to read into is that of the pictures, or lies in it.
    """
    from mmlens.values.picture_files import pictures as kinds
    from mmlens.values.picture_files import suffix

    pictures = Path((data or "").split(":", 1)[-1]).resolve()
    into = sweep.resolve()
    inside = bool(data) and pictures.is_dir() and (into == pictures or pictures in into.parents)
    known = (into / "looks").is_dir()
    holds = (
        into.is_dir() and not known and any(suffix(one.name) in kinds() for one in into.iterdir())
    )
    if inside or holds:
        other = data or str(sweep)
        raise ArgumentError(
            f"{str(sweep)!r} is the folder of the pictures, which is left as it is: name another"
            f" one to read them into, as in `mmlens explore read --data {other}`."
        )
