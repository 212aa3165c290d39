"""`mmlens plan`: what a model will need of memory, before anything of it is loaded."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mmlens.values.errors import ArgumentError


def plan_command(
    model: Annotated[str, typer.Argument(help="A hub id, or a folder.")],
    device: Annotated[
        str | None, typer.Option(help="Compare with the memory of this device: cuda, cuda:1.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="Compare with so many GiB instead, such as 24.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "bfloat16",
    positions: Annotated[
        int | None, typer.Option(help="Of the prompt; else 64 words and one picture.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Count the bytes for weights, a forward pass, an attribution and a cache.

    Only the model's config.json is read.
    """
    from mmlens.doctor.memory_plan import as_data, plan

    room = memory if memory is not None else _memory(device)
    found = plan(model, dtype=dtype, n_pos=positions)
    if as_json:
        typer.echo(json.dumps(as_data(found)))
        return
    typer.echo(str(found))
    if room is not None:
        for what in ("forward", "attribution", "cache"):
            size = (found.weights + getattr(found, what)) / 2**30
            fits = "fits" if size < room else "does not fit"
            typer.echo(f"{what}: {size:.1f} of {room:.1f} GiB, {fits}")


def _memory(device: str | None) -> Any:
    """GiB of a CUDA device.

    Raises:
        ArgumentError: it is not here.
    """
    if device is None or device == "cpu":
        return None
    import torch

    from mmlens.runtime.casting import device_of

    place = device_of(device)
    if place is None or place.type != "cuda" or not torch.cuda.is_available():
        raise ArgumentError(
            f"--device {device} has no memory to compare with here: write --memory 24, in GiB."
        )
    return torch.cuda.get_device_properties(place).total_memory / 2**30
