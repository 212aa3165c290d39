"""`mmlens microscope`: a static site of every unit of a model's tower."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.printing import print_json
from mmlens.values.errors import MMLensError

THINGS, EACH = 32, 8
"""Things of the bundled world, and pictures of each in a format."""


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
    words: Annotated[
        str,
        typer.Option(help="Words of the word probe: labels (those of the data), a file, or none."),
    ] = "labels",
    formats: Annotated[
        str | None,
        typer.Option(
            help="For the cross-format index: a folder FORMAT/CONCEPT/*.png, or pictos.",
            show_default="none",
        ),
    ] = None,
    visualise: Annotated[
        int, typer.Option(min=0, help="Feature visualisations of so many units of each layer.")
    ] = 0,
    chunk: Annotated[
        int, typer.Option(min=1, help="Pictures whose work an interruption costs.")
    ] = 32,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """A site of every unit: what excites it, what it is like, what it feeds. It can be stopped."""
    if os.path.lexists(out) and not os.path.isdir(out):
        raise MMLensError(f"{str(out)!r} is no folder: give --out a folder for the site.")
    from rich.console import Console

    from mmlens.datasets.spec import dataset

    samples = dataset(data)  # a wrong name is told before anything heavy is loaded
    with Console(stderr=True).status(f"loading {model} ..."):
        from mmlens.explore.microscope import microscope

        whole: Any = loaded(model, device, dtype)
    asked: dict[str, Any] = {} if tower == "lm" else {
        "words": listed_words(words), "formats": formats_of(formats), "visualise": visualise,
    }  # fmt: skip
    page = microscope(
        whole, samples, out, tower=tower, layer=layer or None, k=tops, chunk=chunk, progress=True,
        **asked,
    )  # fmt: skip
    unit = "L0.0" if tower == "lm" else "vision.L0.0"
    if as_json:
        print_json({"site": str(page), "first": f"{page}#{unit}"})
        return
    typer.echo(f"Site: {page}; a unit is {page.name}#{unit}")


def listed_words(words: str) -> Any:
    """The words of a file, one a line; "labels" and None as `microscope` takes them."""
    if words in ("labels", "none"):
        return None if words == "none" else words
    try:
        lines = Path(words).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MMLensError(
            f"--words {words!r} is no file of words: write labels, none, or a text file with a"
            " word a line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def formats_of(formats: str | None) -> Any:
    """The pictures by format and concept: of a folder, or of some things of the bundled world."""
    if formats is None:
        return None
    from mmlens.papers.goh.questions.formats import folder, spread_things, world

    return world(spread_things(THINGS), EACH) if formats == "pictos" else folder(formats)
