"""The command line: `mmlens look`, `explore`, `models`, `fetch`, `audit`, `train`, ...

Nothing heavy is imported before a command needs it, so `mmlens --version` answers at once. What
mmlens refuses, it refuses in one sentence on standard error, with exit status 2; `--debug` shows
the traceback instead.
"""

from __future__ import annotations

import io
import shlex
import sys
import warnings
from typing import Annotated, Any

import typer

from mmlens import __version__
from mmlens.cli import (  # noqa: F401  they add their commands
    reproduce_block,
    reproduce_concepts,
    reproduce_dictionaries,
    reproduce_editing,
    reproduce_lenses,
    reproduce_maps,
    reproduce_shootout,
    reproduce_studies,
)
from mmlens.cli.audit_bias import audit_bias_command
from mmlens.cli.doctor import doctor_command
from mmlens.cli.explore import explore_command
from mmlens.cli.fetch import fetch_command
from mmlens.cli.fit_lens import fit_lens_command
from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.look import look_command
from mmlens.cli.microscope import microscope_command
from mmlens.cli.plan_command import plan_command
from mmlens.cli.printing import broken_at_dots, console, print_json, table_of_lines
from mmlens.cli.reproduce import reproduce_app
from mmlens.cli.train import train_command
from mmlens.cli.train_sae import train_sae_command
from mmlens.cli.whole_help import WholeHelp
from mmlens.values.errors import MMLensError


class _Sentences(WholeHelp):
    """A group whose errors are sentences; `--debug` may stand anywhere."""

    debug = False

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        self.debug = "--debug" in args
        return super().parse_args(ctx, [arg for arg in args if arg != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MMLensError as error:
            if self.debug:
                raise
            typer.echo(f"mmlens: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo(f"\nmmlens: {_stopped(ctx)}", err=True)
            raise typer.Exit(130) from None


RESUMED = ("explore", "microscope", "reproduce", "train", "train-sae")
"""Commands that keep what they have done."""


def _stopped(ctx: Any) -> str:
    """What an interruption leaves."""
    if ctx.invoked_subcommand in RESUMED:
        again = shlex.join(["mmlens", *sys.argv[1:]])
        return f"Stopped. What was done is kept; the same command goes on from there: {again}"
    return "Stopped before the end."


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which neurons turn a picture into words, where they look, and what they say.",
)


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a sign shows `?`
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    warnings.formatwarning = lambda message, *_, **__: f"Note: {message}\n"  # no line of code
    app()


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"mmlens {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not its sentence.")
    ] = False,
) -> None:
    pass


app.command("look")(look_command)
app.command("explore")(explore_command)
app.command("microscope")(microscope_command)
app.command("audit-bias")(audit_bias_command)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be loaded by name."""
    from rich.text import Text

    from mmlens import families
    from mmlens.families import native

    names = families.models()
    if as_json:
        known = [{"class": one.cls, "example": one.example} for one in native.known().values()]
        told = [{"name": name, "what": families.describe(name)} for name in names]
        print_json({"names": told, "by_hub_id": known})
        return
    table = table_of_lines()
    table.add_column("name", no_wrap=True, min_width=max(map(len, names)))
    table.add_column("what it is", overflow="fold")
    for name in names:
        table.add_row(Text(name, style="bold"), Text(families.describe(name)))
    console().print(table)
    typer.echo("By hub id or folder, as they are (mmlens plan MODEL says what they need):")
    for one in native.known().values():
        typer.echo(f"  {one.cls}, such as {one.example}")


@app.command()
def audit(
    model: Annotated[str, typer.Argument(help="A name, or a folder.")],
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Check every hook point of a model: it fires, has a gradient, and acts on the logits."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    from mmlens import audit as measure

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"loading {model}", total=None)
        whole = loaded(model, device, dtype)
        progress.update(task, description="hook points")
        points: Any = measure(
            whole, progress=lambda done, of: progress.update(task, completed=done, total=of)
        )
    if as_json:
        print_json(points)
        return
    points["kind"] = points["name"].str.replace(r"\bblocks\.\d+\.", "blocks.*.", regex=True)
    screen, table = console(), table_of_lines(apart=False)
    table.add_column("hook point")
    for column in ("points", "fire", "gradient", "act"):
        table.add_column(column, justify="right", no_wrap=True)
    for kind, rows in points.groupby("kind", sort=False):
        counts = [int(rows[column].sum()) for column in ("fires", "differentiable", "acts")]
        cells = [Text(str(n), style="" if n == len(rows) else "yellow") for n in counts]
        name = broken_at_dots(str(kind), screen.width - 36)
        table.add_row(Text(name), str(len(rows)), *cells)
    screen.print(table)
    typer.echo(
        f"{whole.name}: {len(points)} names of hook points, {int(points['fires'].sum())} fire,"
        f" {int(points['differentiable'].sum())} have a gradient, {int(points['acts'].sum())} act."
    )


app.command("train")(train_command)
app.command("fit-lens")(fit_lens_command)
app.command("train-sae")(train_sae_command)
app.command("fetch")(fetch_command)
app.command("plan")(plan_command)
app.command("doctor")(doctor_command)
app.add_typer(reproduce_app, name="reproduce")
