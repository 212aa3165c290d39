"""`mmlens doctor [MODEL]`: the findings of `examine` as tables, or as JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, as_asked

SIGNS = {True: ("yes", "green"), False: ("NO", "bold red"), None: ("-", "dim")}
STATES = {"too old": "bold red", "newer than tested": "yellow", "not installed": "dim"}


def doctor_command(
    model: Annotated[
        str | None, typer.Argument(help="A model to measure, too: a name or a folder.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Say what is installed here, whether it fits together, and what a model can do.

    The exit status is 1 when something is wrong.
    """
    from mmlens.doctor import examine

    found = examine(None if model is None else as_asked(model, device, dtype))
    if as_json:
        typer.echo(json.dumps(found, indent=1, default=str))
    else:
        _print(found)
    if not found["well"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    console.print(Text(found["line"], style="bold"))
    table = _table("package", "installed", "tested", "")
    for row in found["packages"]:
        extra = f" (mmlens[{row['extra']}])" if row["extra"] else ""
        state = row["state"] if row["state"] != "tested" else ""
        table.add_row(
            Text(row["package"] + extra),
            row["installed"] or "-",
            " to ".join(dict.fromkeys(row["tested"])),
            Text(state, style=STATES.get(row["state"], "")),
        )
    console.print(table)
    table = _table("device", "what", "free memory")
    for row in found["devices"]:
        free = "" if row["free_gib"] is None else f"{row['free_gib']} GiB"
        table.add_row(row["device"], row["name"], free)
    console.print(table)
    pair, hub = found["torchvision"], found["hub"]
    console.print(_line("torch and torchvision fit", pair["fits"], pair["why"]))
    reach = "offline (HF_HUB_OFFLINE)" if hub["offline"] else "asked when a model is named"
    console.print(Text(f"hub: {reach}; {len(hub['models'])} models in {hub['cache']}"))
    for folder in found["folders"]:
        console.print(
            _line(f"{folder['folder']} can be written", folder["writable"], folder["path"])
        )
    if "model" in found:
        _print_model(console, found["model"])


def _print_model(console: Any, model: dict[str, Any]) -> None:
    from rich.text import Text

    console.print(Text(f"\n{model['name']}", style="bold"))
    table = _table("measured on it", "holds", "by how much")
    for check in model["checks"]:
        said, style = SIGNS[check["holds"]]
        table.add_row(check["name"], Text(said, style=style), check["measured"])
    console.print(table)
    for check in model["checks"]:
        if check["follows"]:
            console.print(Text(f"{check['name']}: no, so {check['follows']}."))


def _line(what: str, holds: bool | None, why: str) -> Any:
    from rich.text import Text

    said, style = SIGNS[holds]
    return Text.assemble(f"{what}: ", (said, style), f" ({why})")


def _table(*columns: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
