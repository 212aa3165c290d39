"""`mmlens look`: one picture, its caption, and the neurons that it is attributed to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.printing import check_folder, console, print_json, table_of_lines

if TYPE_CHECKING:
    import numpy as np

    from mmlens.explore import Look


def look_command(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    prompt: Annotated[
        str | None,
        typer.Option(help="The words after the picture.", show_default="A picture of"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name that `mmlens models` lists, or a folder.")
    ] = "pictos",
    of: Annotated[
        list[str] | None,
        typer.Option(
            help="The word of the caption to explain; of a CLIP a text, of a classifier a class,"
            " each given by an --of of its own.",
            show_default="the first thing",
        ),
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
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Caption a picture and show which neurons said it, where they look and what they say.

    A CLIP captions nothing: --of 'a photo of a dog' --of 'a photo of a cat' are held against it.
    """
    from mmlens.values.pictures import open_picture

    photo = open_picture(picture)  # a wrong name is told at once, before anything heavy is loaded
    page = out or Path(f"{picture.stem}.mmlens.html")
    check_folder(page)
    from rich.console import Console

    with Console(stderr=True).status(f"loading {model} ..."):
        from mmlens.explore import Depth, read_found
        from mmlens.explore.look import look as look_at
        from mmlens.methods.translators import Translators
        from mmlens.model.text_end import SENTENCE
        from mmlens.view.explorer_page.page import explore

        tops = read_found(sweep).tops if sweep is not None else None
        depth = Depth(one_by_one="all" if deep else "token")
        how = through if through in ("unembed", "effect") else Translators.load(through)
        seen = look_at(
            loaded(model, device, dtype), photo, prompt, caption=caption,
            of=of[0] if of and len(of) == 1 else of or None, k=neurons, full=depth, through=how,
            stop=None if whole_text else SENTENCE, explain="all" if every_word else "things",
        )  # fmt: skip
        made = explore(seen, title=picture.name, tops=tops)
        made.save(page)
    if as_json:
        print_json(_as_data(seen, page))
        return
    _report(seen, chosen=not of or len(of) > 1)
    typer.echo(f"\nPage: {page}, {made.told}")


def _as_data(seen: Look, page: Path) -> dict[str, Any]:
    """What `_report` prints, for `--json`."""
    was, left = (
        None if one is None else one.sel(token=seen.token).item()
        for one in (seen.before, seen.together)
    )
    keep = [name for name in ("neuron", "sign", "score", "patch", "words", "probs", "interpretable")
            if name in seen.neurons.columns]  # fmt: skip
    return {"prompt": seen.prompt, "caption": seen.caption, "explained": str(seen.token),
            "probability": was, "probability_without": left, "neurons": seen.neurons[keep],
            "page": str(page)}  # fmt: skip


def _report(seen: Look, chosen: bool) -> None:
    """Caption, explained word and the table of neurons, on standard output."""
    from rich.text import Text

    from mmlens.view.figures.on_image import patch_grid
    from mmlens.view.style.printed import plain, visible

    printed = console()
    printed.print(
        Text.assemble((visible_line(seen.prompt), "dim"), (visible_line(seen.caption), "bold"))
    )
    first = "the first word that names a thing (another: --of WORD)"
    why = f", {first if seen.prompt else 'which fits best of these'}" if chosen else ""
    if seen.note:
        printed.print(Text(f"Note: {seen.note}\n"))
    printed.print(Text(f"Explained: {plain(seen.token)!r}{why}\n"))
    table = table_of_lines()
    for name, side in (("neuron", "left"), ("score", "right"), ("patch", "left")):
        table.add_column(name, justify=side, no_wrap=True)
    table.add_column("activates at", no_wrap=True)
    decoded = any(seen.neurons["words"].map(len))
    if decoded:
        table.add_column("decodes to")
    for row in seen.neurons.to_dict("records"):
        where = blocks(patch_grid(seen.activations.sel(neuron=row["neuron"])))
        table.add_row(
            Text(str(row["neuron"]), style="bold"),
            Text(f"{row['score']:+.3g}"),
            Text(f"{row['patch'].row}, {row['patch'].col}"),
            Text(where, style="yellow"),
            *([Text("  ".join(visible(word) for word in row["words"]))] if decoded else []),
        )
    printed.print(table)
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
