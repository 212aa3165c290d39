"""`fit_dictionary`: a sparse autoencoder of a model's activations at one place.

    trained = mm.train.fit_dictionary(
        model, "pictos:train:2000", at="blocks.3.hook_resid_post", out="runs/sae")
    model = model.attach(trained.dictionary)

Its losses are in `dictionary_learner`, its numbers in `dictionary_recipe`, what it reads in
`activation_stream`, its figures in `dictionary_figures`.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.checkpoints.dictionaries.dictionary_files import save_dictionary
from mmlens.checkpoints.weights import expanded
from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset as named_data
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as told_of
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.progress import Progress, bar
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.train.dictionaries.activation_stream import ActivationStream
from mmlens.train.dictionaries.dictionary_figures import dictionary_figures
from mmlens.train.dictionaries.dictionary_learner import DictionaryLearner
from mmlens.train.dictionaries.dictionary_recipe import DictionaryRecipe
from mmlens.train.resume import NAME, read_checkpoint, save_checkpoint
from mmlens.values.arguments import count, text
from mmlens.values.errors import writing
from mmlens.values.labels import Patch
from mmlens.values.placeless import placeless
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

COLUMNS = ("step", "loss", "explained", "l0", "dead")
FIGURES = "figures.json"


@dataclass(frozen=True)
class TrainedDictionary:
    """What a training gives.

    Attributes:
        dictionary: the dictionary.
        curve: DataFrame of step, loss, explained, l0, dead (of the rows of that step).
        figures: of held-out pictures (`dictionary_figures`); empty without such.
        folder: where it lies, for `mmlens.load_dictionary(folder)`.
    """

    dictionary: Dictionary
    curve: pd.DataFrame
    figures: dict[str, float]
    folder: Path


@ordinary()
def fit_dictionary(
    model: HookedModel,
    dataset: Any,
    *,
    at: str,
    out: str | Path,
    kind: str = "batchtopk",
    units: int = 4096,
    k: int = 32,
    steps: int = 2000,
    batch_size: int = 1024,
    lr: float = 4e-4,
    warmup: int = 100,
    dead_after: int = 100_000,
    buffer: int = 256,
    pos: Any = Patch,
    prompt: str = "",
    seed: int = 0,
    held_out: Any = None,
    save_every: int = 200,
    note_every: int = 20,
    batch: int = 16,
    resume: bool = True,
    progress: Progress | bool | None = None,
) -> TrainedDictionary:
    """A dictionary of the activations at one hook, trained on pictures as they come.

    Args:
        dataset: `Samples`, or what `mmlens.dataset` takes.
        at: the hook name, "blocks.3.hook_resid_post" or "vision.blocks.3.hook_resid_post".
        out: a folder, for the dictionary (SAELens' files), checkpoint.pt, curve.csv, figures.json.
        kind: "topk", "batchtopk" or "matryoshka".
        units: how many directions.
        k: how many are active at a position (on average, but for topk).
        batch_size: rows of activations of a step.
        dead_after: rows without a single activation after which a latent is dead.
        buffer: pictures whose rows are shuffled together.
        pos: the positions that are learned, as in `Scores.sel`; None for all.
        prompt: words behind each picture.
        held_out: pictures whose figures are taken at the end.
        save_every: steps between checkpoints. note_every: steps between rows of the curve.
        batch: pictures that the model reads side by side.
        resume: go on from the checkpoint in `out`, with the same result to the bit as without the
            stop (on the same machine); False begins anew.

    Raises:
        DataError: numbers that train nothing. SiteError: no such hook.
        CheckpointError: `out` holds a training with other settings. NumericsError: NaN.
    """
    require(model)
    numbers = (units, k, steps, batch_size, lr, warmup, dead_after, buffer, seed)
    recipe = DictionaryRecipe(kind, *numbers)
    samples, folder = named_data(dataset), expanded(out, "out")
    rate, note = count(save_every, "save_every"), count(note_every, "note_every")
    how: dict[str, Any] = {"pos": pos, "prompt": text(prompt, "prompt"), "buffer": buffer}
    how |= {"batch": count(batch, "batch"), "seed": seed}
    stream = ActivationStream(model, samples, text(at, "at"), **how)
    settings = recipe.to_dict() | {"at": at, "pos": repr(pos), "prompt": prompt,
                                   "data": samples.hash, "model": model.name}  # fmt: skip
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        (folder / NAME).unlink(missing_ok=True)
    state = read_checkpoint(folder, torch.device("cpu"), settings)
    learner, rows = _begin(recipe, stream, state)
    with bar("train-sae", steps, progress) as shown:
        while learner.step < steps:
            row = learner.learn(stream.next(batch_size))
            if learner.step % note == 0 or learner.step == steps:
                rows.append([row[name] for name in COLUMNS])
            if learner.step % rate == 0 or learner.step == steps:
                _save(folder, learner, stream, rows, settings)
            shown(learner.step)
    return _finish(model, learner, rows, settings, samples, folder, held_out, pos, prompt)


def _begin(
    recipe: DictionaryRecipe, stream: ActivationStream, state: Any
) -> tuple[DictionaryLearner, list[list[Any]]]:
    """The learner at the first step, or where a checkpoint left it."""
    if state is None:
        first = stream.next(recipe.batch_size)
        whole = first if stream.rows is None else stream.rows
        stream.offset = 0  # those rows are learned from, too
        return DictionaryLearner(recipe, whole), []
    d = state["learner"]["weights"]["b_dec"].shape[0]
    learner = DictionaryLearner(recipe, torch.zeros(2, d))
    learner.resume(state["learner"])
    stream.resume(state["stream"])
    return learner, [list(row) for row in state["rows"]]


def _save(
    folder: Path,
    learner: DictionaryLearner,
    stream: ActivationStream,
    rows: list[list[Any]],
    settings: dict[str, Any],
) -> None:
    state = {"learner": learner.state(), "stream": stream.state(), "rows": rows}
    save_checkpoint(folder, state | {"settings": settings})
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([COLUMNS, *rows])
    write_whole(folder / "curve.csv", lines.getvalue())


def _finish(
    model: Any,
    learner: DictionaryLearner,
    rows: list[list[Any]],
    settings: dict[str, Any],
    samples: Samples,
    folder: Path,
    held_out: Any,
    pos: Any,
    prompt: str,
) -> TrainedDictionary:
    """The dictionary on disk, with its provenance and its figures."""
    versions = {name: version(name) for name in ("torch", "transformers")}
    about = {"trained": settings | {"pictures": samples.name, "versions": versions},
             "of": told_of(model)["model"]}  # fmt: skip
    dictionary = learner.dictionary(settings["at"], placeless(about))
    figures: dict[str, float] = {}
    if held_out is not None:
        figures = dictionary_figures(model, dictionary, held_out, pos=pos, prompt=prompt)
    save_dictionary(dictionary, folder)
    write_whole(folder / FIGURES, json.dumps(figures, indent=1) + "\n")
    curve = pd.DataFrame(rows, columns=list(COLUMNS))
    return TrainedDictionary(dictionary, curve, figures, folder)
