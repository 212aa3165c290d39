"""The command line: `mmlens look`, `explore`, `models`, `fetch`, `audit`, `train`, ...

Nothing heavy is imported before a command needs it, so `mmlens --version` answers at once. What
mmlens refuses, it refuses in one sentence on standard error, with exit status 2; `--debug` shows
the traceback instead.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mmlens import __version__
from mmlens.cli.doctor import doctor_command
from mmlens.cli.fetch import fetch_command
from mmlens.cli.look import check_folder, explore_command
from mmlens.cli.reproduce import reproduce_app
from mmlens.cli.train import train_command
from mmlens.values.errors import MMLensError

if TYPE_CHECKING:
    import numpy as np

    from mmlens.explore import Look


class _Sentences(TyperGroup):
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


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which neurons turn a picture into words, where they look, and what they say.",
)


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a sign shows `?`
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
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


@app.command()
def look(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    prompt: Annotated[str, typer.Option(help="The words after the picture.")] = "A picture of",
    model: Annotated[
        str, typer.Option(help="A name that `mmlens models` lists, or a folder.")
    ] = "pictos",
    of: Annotated[
        str | None,
        typer.Option(help="The word of the caption to explain.", show_default="the first thing"),
    ] = None,
    caption: Annotated[
        str | None,
        typer.Option(help="Explain these words.", show_default="what the model says"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write.", show_default="PICTURE.mmlens.html, here"),
    ] = None,
    neurons: Annotated[int, typer.Option(min=1, help="How many neurons per word.")] = 10,
    sweep: Annotated[
        Path | None,
        typer.Option(help="Show each neuron's top pictures from this folder of `mmlens explore`."),
    ] = None,
    every_word: Annotated[
        bool,
        typer.Option("--every-word", help="Explain every word, not the things alone (slower)."),
    ] = False,
    whole_text: Annotated[
        bool, typer.Option("--whole-text", help="Let the caption go on after its first sentence.")
    ] = False,
    through: Annotated[
        str, typer.Option(help="Neurons decode by: unembed, effect (slower), or a lens's file.")
    ] = "unembed",
    deep: Annotated[
        bool, typer.Option("--deep", help="The caption without each neuron of the page (slower).")
    ] = False,
) -> None:
    """Caption a picture and show which neurons said it, where they look and what they say."""
    from mmlens.values.pictures import open_picture

    photo = open_picture(picture)  # a wrong name is told at once, before anything heavy is loaded
    page = out or Path(f"{picture.stem}.mmlens.html")
    check_folder(page)
    from rich.console import Console

    with Console(stderr=True).status(f"loading {model} ..."):
        from mmlens.explore import Depth, read_found
        from mmlens.explore.look import look as look_at
        from mmlens.families import load
        from mmlens.methods.translators import Translators
        from mmlens.model.text_end import SENTENCE
        from mmlens.view.explorer_page.page import explore

        tops = read_found(sweep).tops if sweep is not None else None
        depth = Depth(one_by_one="all" if deep else "token")
        how = through if through in ("unembed", "effect") else Translators.load(through)
        seen = look_at(
            load(model), photo, prompt, of=of, caption=caption, k=neurons, full=depth, through=how,
            stop=None if whole_text else SENTENCE, explain="all" if every_word else "things",
        )  # fmt: skip
        made = explore(seen, title=picture.name, tops=tops)
        made.save(page)
    _report(seen, chosen=of is None)
    typer.echo(f"\nPage: {page}, {made.told}")


@app.command()
def models() -> None:
    """List the models that can be loaded by name."""
    from rich.console import Console
    from rich.text import Text

    from mmlens import families

    names = families.models()
    table = _table()
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", no_wrap=True, overflow="ellipsis")
    for name in names:
        table.add_row(Text(name, style="bold"), Text(families.describe(name)))
    Console().print(table)


@app.command()
def audit(model: Annotated[str, typer.Argument(help="A name, or a folder.")]) -> None:
    """Check every hook point of a model: it fires, has a gradient, and acts on the logits."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    from mmlens import audit as measure
    from mmlens.families import load

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"loading {model}", total=None)
        loaded = load(model)
        progress.update(task, description="hook points")
        points: Any = measure(
            loaded, progress=lambda done, of: progress.update(task, completed=done, total=of)
        )
    points["kind"] = points["name"].str.replace(r"\bblocks\.\d+\.", "blocks.*.", regex=True)
    table = _table()
    table.add_column("hook point", no_wrap=True)
    for column in ("points", "fire", "differentiable", "act"):
        table.add_column(column, justify="right")
    for kind, rows in points.groupby("kind", sort=False):
        counts = [int(rows[column].sum()) for column in ("fires", "differentiable", "acts")]
        cells = [Text(str(n), style="" if n == len(rows) else "yellow") for n in counts]
        table.add_row(Text(str(kind)), str(len(rows)), *cells)
    Console().print(table)
    typer.echo(
        f"{loaded.name}: {len(points)} names of hook points, {int(points['fires'].sum())} fire,"
        f" {int(points['differentiable'].sum())} have a gradient, {int(points['acts'].sum())} act."
    )


def _report(seen: Look, chosen: bool) -> None:
    """Caption, explained word and the table of neurons, on standard output."""
    from rich.console import Console
    from rich.text import Text

    from mmlens.view.figures.on_image import patch_grid
    from mmlens.view.style.printed import plain, visible

    console = Console()
    console.print(
        Text.assemble((visible_line(seen.prompt), "dim"), (visible_line(seen.caption), "bold"))
    )
    why = ", the first word that names a thing (another: --of WORD)" if chosen else ""
    console.print(Text(f"Explained: {plain(seen.token)!r}{why}\n"))
    table = _table()
    for name, side in (("neuron", "left"), ("score", "right"), ("patch", "left")):
        table.add_column(name, justify=side, no_wrap=True)
    table.add_column("activates at", no_wrap=True)
    table.add_column("decodes to")
    for row in seen.neurons.to_dict("records"):
        where = blocks(patch_grid(seen.activations.sel(neuron=row["neuron"])))
        table.add_row(
            Text(str(row["neuron"]), style="bold"),
            Text(f"{row['score']:+.3g}"),
            Text(f"{row['patch'].row}, {row['patch'].col}"),
            Text(where, style="yellow"),
            Text("  ".join(visible(word) for word in row["words"])),
        )
    console.print(table)
    if seen.before is not None and seen.together is not None:
        was, left = (one.sel(token=seen.token).item() for one in (seen.before, seen.together))
        which = (
            "this neuron" if len(seen.neurons) == 1 else f"the first {min(len(seen.neurons), 10)}"
        )
        typer.echo(f"{plain(seen.token)!r} has probability {was:.3f}, without {which} {left:.3f}.")


def visible_line(text: str) -> str:
    """Text for a terminal: control characters made visible, spaces kept."""
    from mmlens.view.style.printed import visible

    return " ".join(visible(part) if part else "" for part in text.split(" "))


def blocks(grid: np.ndarray, tall: int = 8) -> str:
    """A map as block characters, two rows a line: filled where above half the maximum."""
    import numpy as np

    size = max(1, -(-max(grid.shape) // tall))  # patches that share a dot: the largest counts
    rows, cols = (-(-n // size) for n in grid.shape)
    small = np.full((rows + rows % 2, cols), -np.inf)
    for (row, col), value in np.ndenumerate(grid):
        small[row // size, col // size] = max(small[row // size, col // size], value)
    top = small.max()
    on = small > top / 2 if top > 0 else np.zeros_like(small, dtype=bool)
    signs = {(False, False): "·", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    return "\n".join(
        "".join(signs[bool(a), bool(b)] for a, b in zip(on[i], on[i + 1], strict=True))
        for i in range(0, len(on), 2)
    )


def _table() -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, leading=1 if sys.stdout.isatty() else 0)


app.command("explore")(explore_command)
app.command("train")(train_command)
app.command("fetch")(fetch_command)
app.command("doctor")(doctor_command)
app.add_typer(reproduce_app, name="reproduce")
