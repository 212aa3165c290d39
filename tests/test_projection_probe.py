"""The projection's probe: what a projection keeps is read behind it, what it drops is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

import mmlens as mm
from mmlens.methods.projection_probe import left_out
from mmlens.values.errors import ArgumentError

SHADES = {"dark": 60, "light": 200}
LABELS = list(SHADES) * 10


def picture(shade: int, seed: int) -> Image.Image:
    """Noise up to a shade."""
    noise = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(seed)) * shade
    return Image.fromarray(noise.byte().numpy())


PICTURES = [picture(SHADES[label], seed) for seed, label in enumerate(LABELS)]


def richness(model: Any) -> dict[tuple[str, str], float]:
    table: Any = mm.projection_probe(model, PICTURES, LABELS)
    assert table.groupby(["place", "arm"])["picture"].apply(sorted).map(len).eq(20).all()
    return table.groupby(["place", "arm"])["right"].mean().to_dict()


def test_a_projection_that_keeps_all_dimensions_loses_nothing_and_one_that_keeps_none_loses_all():
    model: Any = mm.load("toy-gptj")
    whole = richness(model)
    assert whole["features", "labels"] == 1.0 and whole["soft prompt", "labels"] == 1.0
    assert max(whole["features", "shuffled"], whole["soft prompt", "shuffled"]) < 0.8
    with torch.no_grad():
        model.projection.weight.zero_()
    empty = richness(model)
    assert empty["features", "labels"] == 1.0 and empty["soft prompt", "labels"] < 0.8


def test_no_picture_is_named_by_a_probe_that_was_fitted_on_it():
    """Each of its own class but one coordinate: only a probe that saw a picture could name it."""
    x, target = torch.eye(8) * 10, torch.arange(8) % 2
    assert bool((left_out(x, target, torch.arange(8), 2, 0.01) != target).all())
    apart = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    apart += 20.0 * target[:, None]
    assert bool((left_out(apart, target, torch.arange(8), 2, 0.01) == target).all())


def test_pictures_without_labels_or_of_one_class_are_refused():
    model: Any = mm.load("toy-gptj")
    for pictures, labels in ((PICTURES, LABELS[:3]), (PICTURES, ["one"] * 20)):
        with pytest.raises(ArgumentError, match="as many labels as pictures, and two classes"):
            mm.projection_probe(model, pictures, labels)
    with pytest.raises(ArgumentError, match="folds"):
        mm.projection_probe(model, PICTURES, LABELS, folds=11)
