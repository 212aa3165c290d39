"""`fit`: learn the linear projection of a bridge from captioned pictures (LiMBeR's recipe).

    trained = fit(model, open_pairs("photos"), steps=2000, batch_size=32, out="runs/mine")
    trained.model.generate(Prompt(photo))

    L(P) = - mean over caption tokens t of log p(w_t | P E(I), w_<t)       arXiv 2209.15162

E and the language model stay as they are; P alone learns. One departure from the authors: the mean
is over all targets of a step, however it is split into micro-batches and processes (theirs is the
mean of the means of each), so that the split does not change what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.checkpoints.folder import save as save_bridge
from mmlens.datasets.caption_pairs import CaptionPairs, DataError
from mmlens.model.capabilities import require
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.runtime.autograd import ordinary
from mmlens.train.recipe import TrainingRecipe
from mmlens.train.resume import NAME, Curve
from mmlens.train.trainer import Trainer
from mmlens.values.arguments import count
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import WriteError, writing
from mmlens.values.placeless import placeless
from mmlens.values.whole_files import printable, remove_leftovers


@dataclass(frozen=True)
class TrainedProjection:
    """What a training gives.

    Attributes:
        model: the bridge with the learned projection.
        curve: DataFrame of step, loss, lr, grad_norm, pictures_per_s, held_out.
        provenance: settings, data, versions, final loss and what could not be read.
        folder: where the bridge, the checkpoint and curve.csv are.
    """

    model: HookedVLM
    curve: pd.DataFrame
    provenance: dict[str, Any]
    folder: Path


@ordinary()
def fit(
    model: HookedVLM,
    pairs: CaptionPairs,
    *,
    out: str | Path,
    steps: int,
    batch_size: int,
    lr: float = 8e-4,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.0,
    clip: float = 1.0,
    warmup: int = 100,
    dropout: float = 0.1,
    seed: int = 0,
    accumulate: int = 1,
    prefix: str | None = None,
    max_tokens: int = 128,
    held_out: CaptionPairs | None = None,
    check_every: int = 500,
    save_every: int = 500,
    resume: bool = True,
    workers: int = 0,
    recompute: bool = False,
    progress: bool = False,
    by_reference: Mapping[str, Any] | None = None,
) -> TrainedProjection:
    """The bridge with its projection trained; it begins from the projection that `model` has.

    Args:
        model: any bridge with a Hugging Face language model; it is not changed.
        pairs: what `open_pairs` or `cache_features` returns.
        out: a folder, for checkpoint.pt, curve.csv and at the end the bridge (`mmlens.load(out)`).
        steps: of the optimizer.
        batch_size: pictures of a micro-batch, over all processes.
        lr: the highest learning rate; see `mmlens.train.recipe` for its course.
        clip: the length to which longer gradients are cut; float("inf") cuts none.
        warmup: steps until then (at most a tenth of all).
        dropout: on the soft prompt, while training only.
        seed: of order, captions and dropout.
        accumulate: micro-batches of a step (LiMBeR: 8 of 256).
        prefix: words between picture and caption, no targets (LiMBeR: none).
        max_tokens: longer captions are cut.
        held_out: pictures whose loss is taken every `check_every` steps and at the end.
        save_every: steps between two checkpoints.
        resume: go on from the checkpoint in `out`; the result is the same to the bit as without
            the stop (on the same machine). False begins anew.
        workers: processes that read pictures ahead.
        recompute: compute the language model's activations again in the backward pass, which needs
            less memory and more time.
        progress: show a bar with rate, time left and loss.
        by_reference: parts to name rather than to copy into `out` (see `checkpoints.folder.save`).

    Raises:
        NumericsError: the loss became NaN or infinite; the last checkpoint stays.
        CheckpointError: `out` holds a training with other settings or data.
        DataError: a number out of its range. DataError, PictureError: captioned pictures that
            cannot be used.
    """
    require(model)
    recipe = TrainingRecipe(
        steps=steps, batch_size=batch_size, lr=lr, betas=betas, weight_decay=weight_decay,
        clip=clip, warmup=warmup, dropout=dropout, seed=seed, accumulate=accumulate,
        prefix=prefix, max_tokens=max_tokens,
    )  # fmt: skip
    count(check_every, "check_every", error=DataError)
    count(save_every, "save_every", error=DataError)
    count(workers, "workers", least=0, error=DataError)
    folder = path_of(out, "out", error=DataError)
    if printable(folder) != str(folder):
        raise WriteError(
            f"{str(folder)!r} is no name in UTF-8, which the files of a bridge need: give another"
            " folder."
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model, pairs, recipe, workers, recompute)
    if resume:
        trainer.resume(folder)
    if trainer.accelerator.is_main_process:
        remove_leftovers(folder)
        if not resume:
            (folder / NAME).unlink(missing_ok=True)
    curve = _run(trainer, folder, held_out, check_every, save_every, progress)
    return _finish(model, trainer, curve, folder, by_reference)


def _run(
    trainer: Trainer,
    folder: Path,
    held_out: CaptionPairs | None,
    check_every: int,
    save_every: int,
    progress: bool,
) -> Curve:
    """All steps that are left, with their checkpoints."""
    main, steps = trainer.accelerator.is_main_process, trainer.recipe.steps
    curve = Curve(folder / "curve.csv" if main else None, trainer.step)
    batches = trainer.batches()
    with _bar(trainer.step, steps, progress and main) as show:
        while trainer.step < steps:
            row: dict[str, Any] = trainer.advance(batches)
            last = trainer.step == steps
            if held_out is not None and (last or trainer.step % check_every == 0):
                row["held_out"] = trainer.held_out(held_out)
            curve.add(row)
            if last or trainer.step % save_every == 0:
                trainer.save(folder)
            show(row)
    return curve


def _finish(
    model: HookedVLM,
    trainer: Trainer,
    curve: Curve,
    folder: Path,
    by_reference: Mapping[str, Any] | None,
) -> TrainedProjection:
    frame, bad = curve.frame(), trainer.all_bad()
    about: dict[str, Any] = trainer.settings | {
        "processes": trainer.world,
        "bad_pictures": len(bad),
        "bad": dict(list(bad.items())[:20]),
        "curve": curve.points(),
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
    }
    about = placeless(about)
    checked = frame.held_out.dropna()
    about |= {"held_out": float(checked.iloc[-1])} if len(checked) else {}
    projection = trainer.learned.to(model.lm.device, model.lm.dtype)
    trained = HookedVLM(
        model.vision,
        projection,
        model.lm,
        name=model.name,
        provenance={**model.provenance, "projection": f"trained, seed {trainer.recipe.seed}"}
        | {"trained": about},
        prepend_bos=model.prepend_bos,
    )
    if trainer.accelerator.is_main_process:
        save_bridge(trained, folder, by_reference=by_reference)
    trainer.accelerator.wait_for_everyone()
    return TrainedProjection(trained, frame, about, folder)


@contextmanager
def _bar(done: int, steps: int, shown: bool) -> Iterator[Any]:
    """A progress bar with loss, rate and time left; gives the function that moves it on."""
    from rich import progress

    columns = (
        progress.TextColumn("training"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[note]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("", total=steps, completed=done, note="")

        def show(row: Mapping[str, Any]) -> None:
            note = f"loss {row['loss']:.3f}, {row['pictures_per_s']:.1f} pictures/s, left"
            bar.update(task, advance=1, note=note)

        yield show
