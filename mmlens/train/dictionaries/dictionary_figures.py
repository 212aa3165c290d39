"""The usual figures of a dictionary, on pictures that it was not trained on.

    explained variance   1 - sum |x - x^|^2 / sum |x - mean|^2
    L0                   active units per position
    dead share           units that are active at no position of the data
    loss recovered       (L_ablated - L_reconstructed) / (L_ablated - L_clean) of captions, what
                         stands at these positions being replaced: by zero, and by its mean

A loss that is recovered from zero looks better than one that is recovered from the mean, because a
stream of zeros is far from anything that the model has seen (Rajamanoharan et al. 2024, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.datasets.sample import Sample, Samples
from mmlens.datasets.spec import dataset as named_data
from mmlens.model.capabilities import require
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.train.dictionaries.activation_stream import rows_of
from mmlens.values.arguments import count, instance
from mmlens.values.edit import Edit
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import LM, Patch
from mmlens.values.prompt import Prompt
from mmlens.values.sites import site

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


@torch.no_grad()
def dictionary_figures(
    model: HookedModel,
    dictionary: Dictionary,
    dataset: Any,
    *,
    at: str | None = None,
    pos: Any = Patch,
    prompt: str = "",
    batch: int = 16,
) -> dict[str, float]:
    """Explained variance, L0, dead share and loss recovered of a dictionary.

    Args:
        model: without the dictionary.
        dataset: `Samples`, or what `mmlens.dataset` takes; the first caption of each is read.
        at: where the dictionary is attached; by default where it was trained.
        pos: the positions that are reconstructed.
        prompt: words between a picture and its caption.
        batch: pictures that the model reads side by side.

    Returns:
        explained, l0, dead, rows; and of a model that predicts words, where pictures have captions,
        loss, loss_reconstructed, loss_zero, loss_mean, recovered_zero, recovered_mean.
    """
    require(model)
    instance(dictionary, "dictionary", Dictionary, "what mm.load_dictionary(folder) returns")
    place, samples = at or dictionary.at, named_data(dataset)
    if place is None:
        raise ArgumentError("This dictionary does not say where it was trained: write at=.")
    numbers, step = range(len(samples)), count(batch, "batch")
    rows = rows_of(model, samples, numbers, place, pos, prompt, step)
    found = _reconstruction(dictionary, rows)
    if model.can("logits") and all(samples[i].captions for i in numbers):
        found |= _losses(model, dictionary, samples, place, pos, prompt, rows.mean(0))
    return found


def _reconstruction(dictionary: Dictionary, rows: Tensor) -> dict[str, float]:
    missing, active, ever = 0.0, 0.0, torch.zeros(dictionary.n_units, dtype=torch.bool)
    for part in rows.split(4096):
        code = dictionary.encode(part)
        missing += float((part - dictionary.decode(code, part)).square().sum())
        active += float((code > 0).sum())
        ever |= (code > 0).any(0).cpu()
    spread = float((rows - rows.mean(0)).square().sum())
    return {"explained": 1 - missing / spread, "l0": active / len(rows),
            "dead": 1 - float(ever.float().mean()), "rows": float(len(rows))}  # fmt: skip


def _losses(
    model: Any,
    dictionary: Dictionary,
    samples: Samples,
    at: str,
    pos: Any,
    prompt: str,
    mean: Tensor,
) -> dict[str, float]:
    """The loss of captions with the stream as it is, reconstructed, zero and the mean."""
    where = site(at)
    error = "sae_error" if where.tower == LM else f"{where.tower}.sae_error"
    address = {} if pos is None else {"pos": pos}
    models = {
        "loss": model,
        "loss_reconstructed": model.attach(dictionary, at=at).edit(Edit(error, 0.0, **address)),
        "loss_zero": model.edit(Edit(at, 0.0, **address)),
        "loss_mean": model.edit(Edit(at, mean, **address)),
    }
    each = range(len(samples))
    told = {name: _mean([_loss(one, samples[i], prompt) for i in each])
            for name, one in models.items()}  # fmt: skip
    for name in ("zero", "mean"):
        gap = told[f"loss_{name}"] - told["loss"]
        back = told[f"loss_{name}"] - told["loss_reconstructed"]
        told[f"recovered_{name}"] = back / gap if gap else float("nan")
    return told


def _loss(model: Any, sample: Sample, prompt: str) -> float:
    """The loss per word of the first caption behind the picture and the prompt."""
    words = f"{prompt} {sample.captions[0]}" if prompt else sample.captions[0]
    return float(model(Prompt(sample.image, words), return_type="loss"))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
