"""What the study asks of each held-out picture: is it named right, and which tokens stand out?

OUT/features/...                   the encoder's features, computed once
OUT/trainings/ARM-SEED/...         each training; one that was stopped goes on where it was

Where tokens stand out is read at the encoder's features, and in every arm before and behind the
block. A threshold is chosen for each place, quantity and training, as the one that gives the best
mean IoU with the masks of as many pictures that were learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from mmlens.methods.information_filtering import information_filtering
from mmlens.papers.frozen_block.block_pictures import LabelledPictures, names_of, token_mask
from mmlens.papers.tables import ExperimentError
from mmlens.runtime.progress import tracked
from mmlens.train.frozen_block import ARMS, BLOCK, LINEARS, RANDOM
from mmlens.train.frozen_block_fit import TrainedFrozenBlock, fit_frozen_block
from mmlens.train.patch_features import patch_features

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
ENCODER, BETWEEN = "encoder", "between the linears"
PLACES = {BLOCK: ("before the block", "behind the block"),
          RANDOM: ("before the random block", "behind the random block"),
          LINEARS: (BETWEEN,)}  # fmt: skip


def trained_arms(
    model: HookedVLM, pictures: LabelledPictures, folder: Path, *, trainings: int, seed: int,
    progress: bool, **how: Any,
) -> Iterator[tuple[str, int, TrainedFrozenBlock]]:  # fmt: skip
    """Every arm, trained with every seed, one after the other: arm, seed, what was trained."""
    images, labels = [one.image for one in pictures.train], names_of(pictures.train)
    bar = None if progress else False
    for at in range(seed, seed + trainings):
        for arm in ARMS:
            out = folder / "trainings" / f"{arm.replace(' ', '-')}-{at}"
            yield arm, at, fit_frozen_block(
                model, images, labels, out=out, arm=arm, seed=at, cache=folder / "features",
                progress=bar, **how,
            )  # fmt: skip


def named_right(
    trained: TrainedFrozenBlock, features: Sequence[Tensor], names: Sequence[str]
) -> list[float]:
    """Of each picture 1 where it is named right, else 0."""
    said = trained.on(features).argmax(1).tolist()
    return [float(trained.classes[at] == name) for at, name in zip(said, names, strict=True)]


def answers(
    model: HookedVLM, pictures: LabelledPictures, folder: Path, *, share: float, trainings: int,
    seed: int, progress: bool, **how: Any,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """The tables of both questions.

    Args:
        share: so much of a patch must lie under the mask.
        how: options of `fit_frozen_block`.

    Returns:
        right: sample, arm, training, value (0 or 1). iou: sample, arm (the place), quantity,
        training, threshold, value.

    Raises:
        ExperimentError: no thing covers a patch to that share.
    """
    asked, learned = pictures.held_out, pictures.train[: len(pictures.held_out)]
    every = [*learned, *asked]
    masks = {one.id: token_mask(model, one, share) for one in every}
    features = dict(zip(masks, patch_features(
        model, [one.image for one in every], folder / "features", progress=progress or False
    ), strict=True))  # fmt: skip
    chosen_on, seen = (
        [one for one in some if 0 < int(masks[one.id].sum()) < len(masks[one.id])]
        for some in (learned, asked)
    )
    if not chosen_on or not seen:
        raise ExperimentError(
            f"No patch lies under a mask to a share of {share}: give a smaller share=."
        )
    right, iou, first = [], [], True
    for arm, at, trained in trained_arms(model, pictures, folder, trainings=trainings, seed=seed,
                                         progress=progress, **how):  # fmt: skip
        values = named_right(trained, [features[one.id] for one in asked], names_of(asked))
        right += [(one.id, arm, at, value) for one, value in zip(asked, values, strict=True)]
        found: dict[str, list[pd.DataFrame]] = {}
        bar = None if progress else False
        for sample in tracked([*chosen_on, *seen], "tokens that stand out", bar):
            for place, states in _states(trained, features[sample.id], first):
                row = information_filtering(states, masks[sample.id], THRESHOLDS)
                found.setdefault(place, []).append(row.assign(sample=sample.id))
        for place, rows in found.items():
            iou.append(_judged(rows, len(chosen_on)).assign(arm=place, training=at))
        first = False
    return {"right": pd.DataFrame(right, columns=["sample", "arm", "training", "value"]),
            "iou": pd.concat(iou, ignore_index=True)}  # fmt: skip


def _states(
    trained: TrainedFrozenBlock, features: Tensor, first: bool
) -> Iterator[tuple[str, Tensor]]:
    """The tokens of one picture at each place; the encoder's once."""
    if first:
        yield ENCODER, features
    with torch.no_grad():
        states = trained.layer.states(features[None])
    for place, state in zip(PLACES[trained.layer.arm], states, strict=False):
        yield place, state[0]


def _judged(rows: list[pd.DataFrame], learned: int) -> pd.DataFrame:
    """IoU of the held-out pictures, at the threshold that is best on those learned from."""
    first, rest = pd.concat(rows[:learned]), pd.concat(rows[learned:])
    parts = []
    for quantity, some in first.groupby("quantity", sort=False):
        mean: Any = some.groupby("threshold")["iou"].mean()
        own = rest[(rest["quantity"] == quantity) & (rest["threshold"] == mean.idxmax())]
        parts.append(own[["sample", "quantity", "threshold", "iou"]])
    return pd.concat(parts, ignore_index=True).rename(columns={"iou": "value"})
