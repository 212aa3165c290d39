"""One training: the projection learns, everything else stands still.

The projection is copied in float32 (its master weights), whatever the bridge is loaded in. The
language model is a frozen view of the bridge's own weights: gradients flow through it to the soft
prompt, and none are computed for it. `accelerate.Accelerator` finds the device and the other
processes, adds up their gradients and clips them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmlens.datasets.caption_pairs import CaptionPairs, DataError
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.runtime.casting import cast
from mmlens.towers.language.copies import hugging_face
from mmlens.train.caption_loss import Speller, count, loss_sum
from mmlens.train.features import CachedPairs
from mmlens.train.feed import Batch, Feed, drop
from mmlens.train.recipe import TrainingRecipe
from mmlens.train.recompute import recompute
from mmlens.train.resume import read_checkpoint, save_checkpoint
from mmlens.values.errors import CapabilityError, NumericsError
from mmlens.values.optional_packages import package


class Trainer:
    """The moving parts of a training; `fit` turns the crank.

    Args:
        model: the bridge to begin from; it is not changed.
        pairs: the captioned pictures.
        recipe: the numbers.
        workers: processes that read pictures ahead.
        again: recompute the language model's activations (see `mmlens.train.recompute`).
    """

    def __init__(
        self,
        model: HookedVLM,
        pairs: CaptionPairs,
        recipe: TrainingRecipe,
        workers: int = 0,
        again: bool = False,
    ) -> None:
        _check(model)
        cpu = model.lm.device.type == "cpu"
        self.accelerator = package("accelerate", "train").Accelerator(cpu=cpu, mixed_precision="no")
        self.world = self.accelerator.num_processes
        if recipe.batch_size % self.world:
            raise DataError(
                f"batch_size={recipe.batch_size} is shared by {self.world} processes: give a"
                " multiple of that."
            )
        device = self.accelerator.device
        self.vision, self.pairs, self.recipe, self.workers = model.vision, pairs, recipe, workers
        self.lm: Any = cast(hugging_face(model.lm), device, model.lm.dtype)
        if again:
            recompute(self.lm)
        self.bos = model.tokenizer.bos_token_id if model.prepend_bos else None
        self.speller = Speller(model.tokenizer, recipe.prefix, _room(model, recipe))
        learning: Any = copy.deepcopy(model.projection)
        learning = learning.to(device, torch.float32)
        adam = torch.optim.AdamW(
            learning.train().requires_grad_(True).parameters(),
            lr=recipe.lr,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        rate = lambda step: recipe.rate(step)  # noqa: E731 (a bound method would be pickled)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(adam, rate)
        self.projection, self.adam = self.accelerator.prepare(learning, adam)
        self.step, self.saved, self.bad = 0, 0, {}
        self.settings = recipe.to_dict() | {"data": pairs.fingerprint, "model": model.name}
        if isinstance(pairs, CachedPairs):
            pairs.check(model.vision)

    @property
    def learned(self) -> nn.Module:
        """The projection itself, without what several processes wrap around it."""
        return self.accelerator.unwrap_model(self.projection)

    def batches(self) -> Iterator[Batch]:
        """This process's share of the data from this step on."""
        start = self.step * self.recipe.pictures_per_step
        return iter(self._loader(self.pairs, self.recipe.seed, start))

    def advance(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """One step of the optimizer -> its loss (per target), rate and gradient norm.

        Raises:
            NumericsError: the loss or its gradient is NaN or infinite; nothing was learned from it.
        """
        began = time.perf_counter()
        group = [next(batches) for _ in range(self.recipe.accumulate)]
        targets = self._sum(float(sum(count(batch.captions) for batch in group)))
        total = 0.0
        self.adam.zero_grad()
        for batch in group:
            last = batch is group[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.projection):
                loss = self._loss(batch, self.projection, self.recipe.dropout)
                # the processes' gradients are averaged: times `world` makes that a sum
                self.accelerator.backward(loss * self.world / max(targets, 1.0))
            total += float(loss.detach())
            self.bad |= batch.bad
        loss = self._sum(total) / max(targets, 1.0)
        gradient: Any = self.accelerator.clip_grad_norm_(
            self.projection.parameters(), self.recipe.clip
        )
        norm, rate = float(gradient), float(self.schedule.get_last_lr()[0])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            kept = f"the checkpoint of step {self.saved} is kept" if self.saved else "none is saved"
            raise NumericsError(
                f"The loss is {loss} and its gradient {norm} at step {self.step + 1}"
                f" (lr {rate:.2g}), so the training stopped; {kept}: try a smaller lr, or float32."
            )
        self.adam.step()
        self.schedule.step()
        self.step += 1
        speed = self.recipe.pictures_per_step / (time.perf_counter() - began)
        return {
            "step": self.step,
            "loss": loss,
            "lr": rate,
            "grad_norm": norm,
            "pictures_per_s": round(speed, 3),
        }

    @torch.no_grad()
    def held_out(self, pairs: CaptionPairs) -> float:
        """The mean loss per target of pictures that are not learned from, without dropout."""
        total = targets = 0.0
        for batch in self._loader(pairs, None, 0):
            total += float(self._loss(batch, self.learned, 0.0))
            targets += count(batch.captions)
        return self._sum(total) / max(self._sum(targets), 1.0)

    def save(self, folder: Path) -> None:
        """The checkpoint after this step."""
        state = {
            "step": self.step,
            "settings": self.settings,
            "projection": self.learned.state_dict(),
            "optimizer": self.adam.state_dict(),
            "schedule": self.schedule.state_dict(),
            "bad": self.bad,
        }
        if self.accelerator.is_main_process:
            save_checkpoint(folder, state)
        self.saved = self.step

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in a folder, if there is one."""
        state = read_checkpoint(folder, self.accelerator.device, self.settings)
        if state is not None:
            self.learned.load_state_dict(state["projection"])
            self.adam.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.step = self.saved = int(state["step"])
            self.bad = dict(state["bad"])

    def all_bad(self) -> dict[str, str]:
        """The pictures that could not be read, in all processes."""
        from accelerate.utils import gather_object

        bad = dict(self.pairs.bad)
        for found in gather_object([self.bad]):
            bad |= found
        return bad

    def _loader(self, pairs: CaptionPairs, seed: int | None, start: int) -> DataLoader:
        """This process's batches; see `mmlens.train.feed`."""
        rank, size = self.accelerator.process_index, self.recipe.batch_size
        pixels = self.vision.pixels
        feed = Feed(pairs, pixels, self.speller, size, seed, start, rank, self.world)
        return feed.loader(self.workers)

    def _loss(self, batch: Batch, projection: nn.Module, dropout: float) -> Tensor:
        """Summed over the targets of a batch."""
        device = self.accelerator.device
        features = batch.inputs.to(device)
        if features.ndim == 4:
            with torch.no_grad():
                features = self.vision(features).to(device)
        soft = drop(projection(features.float()), dropout, batch.seeds)
        return loss_sum(self.lm, soft, batch.captions.to(device), self.bos)

    def _sum(self, value: float) -> float:
        """Over all processes."""
        device = self.accelerator.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        tensor = torch.tensor(value, dtype=dtype, device=device)
        total: Any = self.accelerator.reduce(tensor, "sum")
        return float(total)


def _check(model: HookedVLM) -> None:
    """Refuse what has no projection to train or no language model to train it against."""
    if model.vision is None or model.projection is None:
        raise CapabilityError(
            f"{model.name!r} has no projection to train: load a bridge, or join an encoder and a"
            " language model with mmlens.from_parts(...)."
        )
    if model.tokenizer is None:
        raise CapabilityError(f"{model.name!r} has no tokenizer to read captions with: give one.")
    if model.lm.hf is None:
        raise CapabilityError(
            f"{model.name!r} is made of a TransformerLens model, and training runs the Hugging Face"
            " one: build it with wrap_lm(hugging_face_model)."
        )
    if model.edits:
        raise CapabilityError(
            f"{model.name!r} has {len(model.edits)} edits, which training would not feel: train the"
            " model without them."
        )


def _room(model: HookedVLM, recipe: TrainingRecipe) -> int:
    """The most tokens of a caption: what the recipe says, or what the positions leave."""
    rows, cols = model.vision.grid
    prefix = len(model.tokenizer(recipe.prefix or "", add_special_tokens=False)["input_ids"])
    taken = rows * cols + prefix + 1 + int(model.prepend_bos)
    most = getattr(model.lm.hf.config, "max_position_embeddings", None) or taken + recipe.max_tokens
    if most <= taken:
        raise CapabilityError(
            f"{model.name!r} has {most} positions, and a picture with its prefix takes {taken}: no"
            " room for a caption."
        )
    return min(recipe.max_tokens, most - taken)
