"""`mmlens train`: the command line of `mmlens.train.fit`.

    mmlens train --vision google/vit-base-patch16-224 --lm gpt2 --data photos --out runs/mine

Heavy imports happen inside, so that `mmlens --help` opens at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Json
from mmlens.cli.printing import print_json
from mmlens.values.errors import ModelError

Text = str | None


def train_command(
    data: Annotated[str, typer.Option(help="Folder, tar shards, saved dataset or hf:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for the trained bridge and its checkpoint.")],
    model: Annotated[Text, typer.Option(help="A bridge to begin from: a name or folder.")] = None,
    vision: Annotated[
        Text, typer.Option(help="Encoder: folder, hub id, open_clip: or timm:.")
    ] = None,
    lm: Annotated[Text, typer.Option(help="Language model: folder or hub id.")] = None,
    projection: Annotated[Text, typer.Option(help="Begin from this projection's file.")] = None,
    tokenizer: Annotated[Text, typer.Option(help="Tokenizer, if not beside the LM.")] = None,
    held_out: Annotated[Text, typer.Option(help="Data whose loss is only watched.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of the optimizer.")] = 15000,
    batch_size: Annotated[int, typer.Option(help="Pictures of a micro-batch.")] = 32,
    accumulate: Annotated[int, typer.Option(help="Micro-batches of a step.")] = 1,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 8e-4,
    warmup: Annotated[int, typer.Option(help="Steps until then.")] = 100,
    dropout: Annotated[float, typer.Option(help="On the soft prompt.")] = 0.1,
    prefix: Annotated[Text, typer.Option(help='Words before captions, as "A picture of".')] = None,
    seed: Annotated[int, typer.Option(help="Of projection, order, captions, dropout.")] = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    check_every: Annotated[int, typer.Option(help="Steps between looks at held-out data.")] = 500,
    resume: Annotated[bool, typer.Option("--resume/--anew", help="Go on, or begin anew.")] = True,
    cache: Annotated[Path | None, typer.Option(help="Keep the encoder's features here.")] = None,
    half: Annotated[bool, typer.Option(help="Keep them in float16.")] = False,
    skip_bad: Annotated[bool, typer.Option(help="Count unreadable pictures and go on.")] = False,
    image_column: Annotated[str, typer.Option(help="Of a dataset.")] = "image",
    caption_column: Annotated[str, typer.Option(help="Of a dataset.")] = "caption",
    split: Annotated[str, typer.Option(help="Of a dataset.")] = "train",
    held_out_split: Annotated[str, typer.Option(help="Of held-out data.")] = "validation",
    dtype: Annotated[
        str, typer.Option(help="Of the frozen parts: float32 or bfloat16.")
    ] = "float32",
    device: Annotated[
        Text, typer.Option(help="cpu, cuda, ...; the best there is if left out.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that read pictures ahead.")] = 0,
    recompute: Annotated[bool, typer.Option(help="Less memory, more time.")] = False,
    as_json: Json = False,
) -> None:
    """Train the projection of a bridge on captioned pictures, both ends frozen."""
    from mmlens.train.training import fit

    bridge = _bridge(model, vision, lm, projection, tokenizer, dtype, device, seed)
    columns: dict[str, Any] = {"image": image_column, "caption": caption_column}
    columns |= {"skip_bad": skip_bad}
    pairs = _pairs(bridge, data, cache, half, columns | {"split": split})
    watched = _pairs(bridge, held_out, cache, half, columns | {"split": held_out_split})
    trained = fit(
        bridge, pairs, out=out, steps=steps, batch_size=batch_size, accumulate=accumulate,
        lr=lr, warmup=warmup, dropout=dropout, prefix=prefix, seed=seed, held_out=watched,
        save_every=save_every, check_every=check_every, resume=resume, workers=workers,
        recompute=recompute, progress=True, by_reference=_named(vision, lm),
    )  # fmt: skip
    _report(trained, as_json)


def _bridge(
    model: str | None,
    vision: str | None,
    lm: str | None,
    projection: str | None,
    tokenizer: str | None,
    dtype: str,
    device: str | None,
    seed: int,
) -> Any:
    """The bridge to train, on the device that this process trains on."""
    import torch

    from mmlens.families import load
    from mmlens.families.parts import from_parts
    from mmlens.values.optional_packages import package

    if (model is None) == (vision is None or lm is None):
        raise ModelError("Say what to train: --model NAME, or --vision ENCODER --lm MODEL.")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ModelError(f"--dtype {dtype} is none of float32, bfloat16, float16.")
    ours = (
        package("accelerate", "train").PartialState(cpu=device == "cpu").device
    )  # of this process among several
    place: Any = ours if device in (None, "cuda") else torch.device(device)
    kind = getattr(torch, dtype)
    if model is None:
        return from_parts(vision, projection, lm, tokenizer, dtype=kind, device=place, seed=seed)
    if projection is not None:
        raise ModelError("--projection goes with --vision and --lm; a --model brings its own.")
    if Path(model).is_dir():
        return load(model, dtype=kind, device=place)
    bridge = load(model)
    there = bridge.lm.device.type == place.type and bridge.lm.dtype == kind
    return bridge if there else bridge.to(place, kind)


def _pairs(bridge: Any, data: str | None, cache: Path | None, half: bool, columns: Any) -> Any:
    """The data, as features where a cache is asked for; the first process fills it."""
    if data is None:
        return None
    from accelerate import PartialState

    from mmlens.datasets.sources import open_pairs
    from mmlens.train.features import cache_features

    pairs = open_pairs(data, **columns)
    if cache is None:
        return pairs
    with PartialState().main_process_first():
        return cache_features(bridge.vision, pairs, cache, half=half, progress=True)


def _named(vision: str | None, lm: str | None) -> dict[str, str]:
    """Parts from a hub are named in the saved bridge, local ones copied into it."""
    parts = {"vision": vision, "lm": lm}
    return {name: part for name, part in parts.items() if part and not Path(part).exists()}


def _report(trained: Any, as_json: bool) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    last, about = trained.curve.iloc[-1], trained.provenance
    if as_json:
        told = {"folder": str(trained.folder), "steps": int(last.step), "loss": float(last.loss)}
        print_json({**told, "bad_pictures": about["bad_pictures"]})
        return
    typer.echo(f"{int(last.step)} steps, loss {last.loss:.3f}; the bridge is in {trained.folder}:")
    typer.echo(f"    mmlens.load({str(trained.folder)!r})")
    if about["bad_pictures"]:
        typer.echo(f"{about['bad_pictures']} pictures could not be used, for example:")
        for why in list(about["bad"].values())[:3]:
            typer.echo(f"    {why}")
