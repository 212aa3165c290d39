"""`fit_frozen_block`: train the two linears around a frozen block, and a classifier's head.

    trained = fit_frozen_block(model, pictures, labels, out="runs/block", arm="block")
    trained.predict(others)

    logits = W norm(mean over patches of F_L2 block(F_L1 x)) + b       loss: cross-entropy

The encoder is frozen too, so that its features are computed once (Pang et al. 2024 train theirs
with the linears, for 300 epochs of ImageNet). Order and first weights are functions of the seed:
all arms begin with the same linears and head, and see the same pictures in the same order.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlens.checkpoints.weights import fresh_linear, weights_hash
from mmlens.datasets.caption_pairs import DataError
from mmlens.datasets.sample import content_hash
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as told_of
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.progress import Progress, bar
from mmlens.runtime.seeding import seed_of
from mmlens.train.frozen_block import BLOCK, FrozenBlock
from mmlens.train.patch_features import patch_features, pixels_hash
from mmlens.train.recipe import TrainingRecipe
from mmlens.train.resume import NAME, read_checkpoint, save_checkpoint
from mmlens.values.arguments import count, flag, path, several, text
from mmlens.values.errors import NumericsError, writing
from mmlens.values.placeless import placeless
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

WEIGHTS, ABOUT, CURVE = "frozen_block.safetensors", "frozen_block.json", "curve.csv"


class _Classifier(nn.Module):
    """The layer, and the head on the mean of its outputs."""

    def __init__(self, layer: FrozenBlock, classes: int, seed: int) -> None:
        super().__init__()
        width = layer.after.out_features
        self.layer = layer
        self.norm = nn.LayerNorm(width)
        self.head = fresh_linear(width, classes, seed_of(seed, "head"))
        self.to(layer.before.weight.device)

    def forward(self, features: Tensor) -> Tensor:
        """Logits Float[picture, class]."""
        return self.head(self.norm(self.layer(features).mean(1)))


@dataclass(frozen=True, eq=False)
class TrainedFrozenBlock:
    """What a training gives.

    Attributes:
        layer: the trained `FrozenBlock`.
        classes: the names, in the order of the logits.
        curve: DataFrame of step and loss.
        about: settings, data, model and versions.
        folder: where weights (safetensors), curve.csv and the checkpoint are.
    """

    layer: FrozenBlock
    classes: tuple[str, ...]
    curve: pd.DataFrame = field(repr=False)
    about: dict[str, Any] = field(repr=False)
    folder: Path
    _model: Any = field(repr=False)
    _whole: nn.Module = field(repr=False)
    _cache: Path = field(repr=False)

    def logits(self, pictures: Sequence[Any]) -> Tensor:
        """Float[picture, class], on the CPU."""
        shown = several(pictures, "pictures")
        return self.on(patch_features(self._model, shown, self._cache, progress=False))

    def on(self, features: Sequence[Tensor]) -> Tensor:
        """The logits Float[picture, class] of features Float[token, d_vision], one a picture."""
        with torch.no_grad():
            return torch.cat([self._whole(one[None]).float().cpu() for one in features])

    def predict(self, pictures: Sequence[Any]) -> list[str]:
        """The class of the largest logit, per picture."""
        return [self.classes[at] for at in self.logits(pictures).argmax(1).tolist()]


@ordinary()
def fit_frozen_block(
    model: HookedVLM,
    pictures: Sequence[Any],
    labels: Sequence[str],
    *,
    out: str | Path,
    layer: int = -1,
    arm: str = BLOCK,
    steps: int = 200,
    batch_size: int = 16,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    cache: str | Path | None = None,
    save_every: int = 50,
    resume: bool = True,
    progress: Progress | bool | None = None,
) -> TrainedFrozenBlock:
    """Two linears around a block of the language model, trained with a head to name pictures.

    Args:
        model: any bridge or vision-language model; it is not changed.
        labels: the class of each picture; at least two different ones.
        out: a folder, for checkpoint.pt, curve.csv, frozen_block.safetensors and its JSON.
        layer, arm: as in `FrozenBlock`: "block", "random block" or "linears".
        steps: of AdamW, whose learning rate warms up for a tenth of them and falls to 0.
        batch_size: pictures of a step.
        seed: of first weights and order.
        cache: a folder for the encoder's features, which several trainings may share; by default
            OUT/features.
        save_every: steps between two checkpoints.
        resume: go on from the checkpoint in `out`, with the same result to the bit as without the
            stop (on the same machine); False begins anew.
        progress: as in `patch`, step by step.

    Raises:
        DataError: as many labels as pictures are needed, two classes, and numbers that train.
        AddressError, CapabilityError: as in `FrozenBlock`.
        CheckpointError: `out` holds another training. NumericsError: the loss is NaN or infinite.
    """
    require(model)
    recipe = TrainingRecipe(steps, batch_size, lr, weight_decay=weight_decay, dropout=0.0,
                            seed=seed)  # fmt: skip
    shown, named = several(pictures, "pictures", error=DataError), _names(labels)
    classes = tuple(sorted(set(named)))
    if len(shown) != len(named) or len(classes) < 2:
        raise DataError(
            f"{len(shown)} pictures and {len(named)} labels of {len(classes)} classes: give as many"
            " labels as pictures, and two classes."
        )
    count(save_every, "save_every", error=DataError)
    folder = path(out, "out", error=DataError)
    kept = folder / "features" if cache is None else path(cache, "cache", error=DataError)
    whole = _Classifier(FrozenBlock(model, layer, arm=arm, seed=seed), len(classes), seed)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not flag(resume, "resume"):
        (folder / NAME).unlink(missing_ok=True)
    settings = {
        name: value for name, value in recipe.to_dict().items()
        if name not in ("accumulate", "prefix", "max_tokens", "dropout")
    } | {"layer": whole.layer.layer, "arm": arm, "classes": len(classes), "n_pictures": len(shown),
         "model": model.name, "labels": content_hash(*named), "pictures": pixels_hash(shown),
         "language_model": weights_hash(dict(whole.layer.block.module.state_dict()))}  # fmt: skip
    features = patch_features(model, shown, kept, progress=progress)
    target = torch.tensor([classes.index(one) for one in named])
    curve = _trained(whole, features, target, recipe, settings, folder, save_every, progress)
    about = _written(whole, model, curve, settings | {"classes": list(classes)}, folder)
    return TrainedFrozenBlock(whole.layer, classes, curve, about, folder, model, whole.eval(), kept)


def _names(labels: Sequence[str]) -> list[str]:
    found = several(labels, "labels", error=DataError)
    return [text(one, "labels", empty=False, error=DataError) for one in found]


def _trained(whole: nn.Module, features: list[Tensor], target: Tensor, recipe: TrainingRecipe,
             settings: dict[str, Any], folder: Path, save_every: int,
             progress: Progress | bool | None) -> pd.DataFrame:  # fmt: skip
    """All steps that are left, with their checkpoints; the loss of each."""
    device = next(whole.parameters()).device
    learner = torch.optim.AdamW(whole.parameters(), lr=recipe.lr, betas=recipe.betas,
                                weight_decay=recipe.weight_decay)  # fmt: skip
    state = read_checkpoint(folder, device, settings)
    losses: list[float] = []
    if state is not None:
        whole.load_state_dict(state["weights"])
        learner.load_state_dict(state["optimizer"])
        losses = [float(one) for one in state["losses"]]
    with bar("frozen block", recipe.steps, progress) as shown, torch.enable_grad():
        for step in range(len(losses), recipe.steps):
            rows = _rows(len(features), recipe, step)
            for group in learner.param_groups:
                group["lr"] = recipe.lr * recipe.rate(step)
            learner.zero_grad()
            losses.append(_loss(whole, [features[at] for at in rows], target[rows].to(device)))
            if not torch.tensor(losses[-1]).isfinite():
                raise NumericsError(
                    f"The loss of step {step + 1} is {losses[-1]}: give a smaller lr=."
                )
            nn.utils.clip_grad_norm_(whole.parameters(), recipe.clip)
            learner.step()
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
                save_checkpoint(folder, {"weights": whole.state_dict(), "losses": losses,
                                         "optimizer": learner.state_dict(),
                                         "settings": settings})  # fmt: skip
            shown(step + 1)
    return pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})


def _loss(whole: nn.Module, features: list[Tensor], target: Tensor) -> float:
    """The mean loss of a step, its gradient taken; pictures of one number of tokens go together."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for at, one in enumerate(features):
        sizes[len(one)].append(at)
    total = 0.0
    for places in sizes.values():
        logits = whole(torch.stack([features[at] for at in places]))
        loss = F.cross_entropy(logits, target[places], reduction="sum") / len(features)
        loss.backward()
        total += float(loss.detach())
    return total


def _rows(n: int, recipe: TrainingRecipe, step: int) -> list[int]:
    """The pictures of a step: one order after the other, each a function of the seed."""
    first = step * recipe.batch_size
    asked = range(first, first + recipe.batch_size)
    orders = {}
    for epoch in {at // n for at in asked}:
        draw = torch.Generator().manual_seed(seed_of(recipe.seed, f"order {epoch}"))
        orders[epoch] = torch.randperm(n, generator=draw).tolist()
    return [orders[at // n][at % n] for at in asked]


def _written(whole: nn.Module, model: Any, curve: pd.DataFrame, settings: dict[str, Any],
             folder: Path) -> dict[str, Any]:  # fmt: skip
    """The trained weights and where they come from, on disk."""
    from safetensors.torch import save

    trained = settings | {"loss": float(curve["loss"].iloc[-1])}
    about = placeless(told_of(model, method="fit_frozen_block") | {"trained": trained})
    state = {name: one.detach().cpu().clone() for name, one in whole.state_dict().items()}
    write_whole(folder / WEIGHTS, save(state, metadata={"about": json.dumps(about)}))
    write_whole(folder / ABOUT, json.dumps(about, indent=1) + "\n")
    write_whole(folder / CURVE, curve.to_csv(index=False))
    return about
