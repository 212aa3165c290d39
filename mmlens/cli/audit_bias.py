"""`mmlens audit-bias`: what a model associates with groups of pictures and words, as one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.printing import print_json
from mmlens.values.errors import MMLensError


def audit_bias_command(
    model: Annotated[str, typer.Argument(help="A name that `mmlens models` lists, or a folder.")],
    concepts: Annotated[
        Path | None,
        typer.Option(help="The concepts file, YAML.", show_default="that of the bundled world"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("bias"),
    layer: Annotated[int, typer.Option(help="Of the vision tower, whose units are asked.")] = -1,
    draws: Annotated[int, typer.Option(min=99, help="Permutations of each test.")] = 9999,
    seed: Annotated[int, typer.Option(min=0, help="Of permutations and intervals.")] = 0,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Associations of concepts with groups, in embeddings and single units, and what they show."""
    if os.path.lexists(out) and not os.path.isdir(out):
        raise MMLensError(f"{str(out)!r} is no folder: give --out a folder for the report.")
    from rich.console import Console

    from mmlens.papers.bias.concepts_file import read_concepts

    read_concepts(concepts)  # a wrong file is told before anything heavy is loaded
    with Console(stderr=True).status(f"loading {model} ...") as status:
        from mmlens.papers.bias.bias_report import audit_bias

        whole = loaded(model, device, dtype)
        status.update("measuring ...")
        found = audit_bias(whole, concepts, out, layer=layer, draws=draws, seed=seed)
    if as_json:
        print_json({"report": str(found.page), "associations": found.associations})
        return
    n = sum(float(p) <= 0.05 for p in found.associations["p_holm"])
    typer.echo(f"{n} of {len(found.associations)} associations of embeddings at p_holm <= .05.")
    typer.echo(f"Report: {found.page}")
