"""`mmlens reproduce shootout`: every method against its control, in one table.

mmlens reproduce shootout                              # the bundled model and world: an hour
mmlens reproduce shootout --study maps --study lenses  # some studies alone
mmlens reproduce shootout --model smol --data coco:FOLDER --out runs/shootout
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.printing import console, print_json, table_of_lines
from mmlens.cli.reproduce import Text, in_other_words, reproduce_app
from mmlens.cli.reproduce_studies import (
    Anew,
    Draws,
    Model,
    Out,
    Pictures,
    Results,
    Seed,
    few,
    known,
)
from mmlens.cli.written_command import written


@reproduce_app.command("shootout")
def shootout_command(
    model: Model = "pictos",
    data: Annotated[Text, known("as many of the bundled world as each study takes")] = None,
    out: Out = Path("shootout"),
    results: Results = None,
    pictures: Pictures = None,
    study: Annotated[
        list[str] | None,
        typer.Option(help="One study alone; may be given several times.", show_default="all"),
    ] = None,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Every method against a control of its own, in one table."""
    command = written("shootout", shootout_command, locals())
    from rich.markup import escape

    from mmlens.datasets.spec import dataset
    from mmlens.papers import shootout
    from mmlens.sweep.record import SweepError

    samples = None if data is None else few(dataset(data), pictures)
    try:
        report = shootout.reproduce(
            as_asked(model, device, dtype), samples, out, studies=study or None, draws=draws,
            seed=seed, results=results, resume=not anew, command=command,
        )  # fmt: skip
    except SweepError as error:
        raise in_other_words(error) from error
    if as_json:
        print_json({"methods": report.table.to_dict("records"), "page": str(report.page)})
        return
    for part in report.sections:
        typer.echo(f"\n{part.title}\n{part.how}")
        shown = table_of_lines(apart=False)
        for name in part.table[0]:
            shown.add_column(name)
        for line in part.table[1:]:
            shown.add_row(*(escape(cell) for cell in line))
        console().print(shown)
    typer.echo(f"\nPage: {report.page}\nMarkdown: {results or report.results}")
