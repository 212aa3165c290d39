"""`mmlens train-sae`: the command line of `mmlens.train.fit_dictionary`.

mmlens train-sae pictos --data pictos:train:2000 --at blocks.3.hook_resid_post --out runs/sae
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.printing import print_json

Text = str | None


def train_sae_command(
    model: Annotated[str, typer.Argument(help="A name, or a folder.")],
    data: Annotated[str, typer.Option(help="pictos:train:2000, coco:FOLDER, hf:NAME, a folder.")],
    at: Annotated[str, typer.Option(help="The hook name, as blocks.3.hook_resid_post.")],
    out: Annotated[Path, typer.Option(help="Folder for the dictionary and its checkpoint.")],
    kind: Annotated[str, typer.Option(help="topk, batchtopk or matryoshka.")] = "batchtopk",
    units: Annotated[int, typer.Option(help="How many directions.")] = 4096,
    k: Annotated[int, typer.Option(help="Active at a position, on average but for topk.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of the optimizer.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Rows of activations of a step.")] = 1024,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 4e-4,
    warmup: Annotated[int, typer.Option(help="Steps until then.")] = 100,
    dead_after: Annotated[int, typer.Option(help="Idle rows of a dead latent.")] = 100_000,
    buffer: Annotated[int, typer.Option(help="Pictures shuffled together.")] = 256,
    batch: Annotated[int, typer.Option(help="Pictures read side by side.")] = 16,
    every_position: Annotated[
        bool, typer.Option("--every-position", help="Words too, not pictures alone.")
    ] = False,
    prompt: Annotated[str, typer.Option(help="Words behind each picture.")] = "",
    held_out: Annotated[Text, typer.Option(help="Data whose figures are taken.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    resume: Annotated[bool, typer.Option("--resume/--anew", help="Go on, or begin anew.")] = True,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Train a sparse autoencoder on a model's activations, as they come."""
    from mmlens.train.dictionaries.fit_dictionary import fit_dictionary
    from mmlens.values.labels import Patch

    trained = fit_dictionary(
        loaded(model, device, dtype), data, at=at, out=out, kind=kind, units=units, k=k,
        steps=steps, batch_size=batch_size, lr=lr, warmup=warmup, dead_after=dead_after,
        buffer=buffer, batch=batch, pos=None if every_position else Patch, prompt=prompt,
        held_out=held_out, seed=seed, save_every=save_every, resume=resume,
    )  # fmt: skip
    last = trained.curve.iloc[-1].to_dict()
    if as_json:
        print_json({"folder": str(trained.folder), "last_step": last, "held_out": trained.figures})
        return
    typer.echo(f"{trained.dictionary!r}")
    shown = trained.figures or {name: last[name] for name in ("explained", "l0", "dead")}
    for name, value in shown.items():
        typer.echo(f"  {name.replace('_', ' ')}: {value:.4g}")
    typer.echo(f"Use it: model.attach(mmlens.load_dictionary({str(trained.folder)!r}))")
