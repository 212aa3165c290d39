"""`mmlens fit-lens`: fit a tuned or a Jacobian lens and keep it in a file, which `--through` reads.

mmlens fit-lens pictos --kind tuned --data pictos:train:40 --out lens.safetensors
mmlens look photo.png --model pictos --through lens.safetensors
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, loaded
from mmlens.cli.printing import print_json
from mmlens.values.errors import ArgumentError, PromptError, reason


def fit_lens_command(
    model: Annotated[str, typer.Argument(help="A name that `mmlens models` lists, or a folder.")],
    out: Annotated[Path, typer.Option(help="The file of the lens.")] = Path("lens.safetensors"),
    kind: Annotated[str, typer.Option(help="tuned, or jacobian.")] = "tuned",
    data: Annotated[
        str | None,
        typer.Option(help="Captioned pictures to fit on.", show_default="pictos:train:40"),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="A file of texts instead, one a line.", show_default="none")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Words before a caption.")] = "A picture of",
    steps: Annotated[int, typer.Option(help="Of training a layer; for tuned.")] = 200,
    batch: Annotated[
        int | None, typer.Option(help="Rows computed side by side.", show_default="128, or 16")
    ] = None,
    lr: Annotated[float, typer.Option(help="The first learning rate; for tuned.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of the positions of a step; for tuned.")] = 0,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Fit a lens on texts or captioned pictures."""
    if kind not in ("tuned", "jacobian"):
        raise ArgumentError(f"--kind {kind} is none of tuned, jacobian.")
    if data is not None and texts is not None:
        raise ArgumentError("Give --data or --texts, not both.")
    prompts = _lines(texts) if texts is not None else _captioned(data or "pictos:train:40", prompt)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"loading {model}", total=None)
        from mmlens.methods.jacobian_lens import jacobian_lens
        from mmlens.methods.tuned_lens import tuned_lens

        whole = loaded(model, device, dtype)
        bar.update(task, description=f"{kind} lens")
        size: dict[str, Any] = {} if batch is None else {"batch": batch}
        size["progress"] = lambda done, of: bar.update(task, completed=done, total=of)
        if kind == "tuned":
            lens = tuned_lens(whole, prompts, steps=steps, lr=lr, seed=seed, **size)
        else:
            lens = jacobian_lens(whole, prompts, **size)
        place = lens.save(out)
    if as_json:
        print_json({"lens": str(place), "kind": kind, "prompts": len(prompts), "about": lens.about})
        return
    typer.echo(f"{kind} lens of {len(prompts)} prompts: {place}")
    if kind == "tuned":
        pairs = zip(lens.about["logit_lens_loss"], lens.about["loss"], strict=True)
        for layer, (before, after) in enumerate(pairs):
            typer.echo(f"  layer {layer}: {before:.3f} nats from the model, now {after:.3f}")


def _lines(texts: Path) -> list[Any]:
    try:
        found = [line.strip() for line in texts.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise PromptError(f"{str(texts)!r} is no file of texts: {reason(error)}") from error
    if not found:
        raise PromptError(f"{str(texts)!r} has no text in it: write one a line.")
    return found


def _captioned(data: str, words: str) -> list[Any]:
    """Each picture with its first caption behind the words."""
    from mmlens.datasets.spec import dataset
    from mmlens.values.prompt import Prompt

    found = []
    for sample in dataset(data):
        said = sample.captions[0] if sample.captions else ""
        found.append(Prompt(sample.image, words + (said if said[:1] == " " else f" {said}")))
    return found
