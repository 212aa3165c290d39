"""The study of a frozen block: verdicts of planted tables, masks of tokens, a run that goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge
from PIL import Image

from mmlens.causal.masked_patches import patches_under
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.papers import contests as judging
from mmlens.papers import frozen_block
from mmlens.papers.frozen_block import block_answers
from mmlens.papers.frozen_block.block_claims import (
    BEFORE,
    BEFORE_RANDOM,
    BEHIND,
    BEHIND_RANDOM,
    CLAIMS,
    ENCODER,
    EVERY,
    contests,
    judged,
)
from mmlens.papers.frozen_block.block_pictures import labelled, token_mask, world_pictures
from mmlens.papers.tables import ExperimentError
from mmlens.train import frozen_block_fit, patch_features
from mmlens.train.frozen_block import ARMS, BLOCK, LINEARS, RANDOM
from mmlens.values.errors import CheckpointError

QUANTITIES = ("magnitude", "frequency")


def tables(right: dict[Any, float], iou: dict[Any, float], n: int = 40) -> dict[str, Any]:
    """Of each arm so many of a picture's ten trainings are right; IoU by place, a little moved."""
    rng = np.random.default_rng(0)
    named = [(f"s{at}", arm, seed, float(seed < 10 * right[arm]))
             for at in range(n) for arm in ARMS for seed in range(10)]  # fmt: skip
    met = [(f"s{at}", place, quantity, 0, iou.get(place, 0.3) + 0.01 * rng.random())
           for at in range(n) for place in EVERY for quantity in QUANTITIES]  # fmt: skip
    return {"right": pd.DataFrame(named, columns=["sample", "arm", "training", "value"]),
            "iou": pd.DataFrame(met, columns=["sample", "arm", "quantity", "training",
                                              "value"])}  # fmt: skip


def verdicts(found: dict[str, Any]) -> list[bool | None]:
    parts = [judged(key, found, draws=200, seed=0) for key in CLAIMS]
    return [None if one.verdict is None else one.verdict.holds for one in parts]


GOOD = {BLOCK: 0.9, RANDOM: 0.3, LINEARS: 0.6}
APART = {BEFORE: 0.3, BEHIND: 0.6, BEFORE_RANDOM: 0.3, BEHIND_RANDOM: 0.2, ENCODER: 0.4}


def test_claims_hold_where_planted_and_fail_where_turned_round():
    assert verdicts(tables(GOOD, APART)) == [True] * 4
    bad = {BLOCK: 0.2, RANDOM: 0.6, LINEARS: 0.7}
    assert verdicts(tables(bad, APART | {BEHIND: 0.1})) == [False] * 4
    assert verdicts(tables(bad, APART | {BEHIND: 0.25})) == [False, False, False, True]
    assert verdicts(tables(GOOD, APART, n=7)) == [None] * 4
    flat = dict.fromkeys(ARMS, 0.5)
    assert verdicts(tables(flat, APART))[:2] == [None, None]


def test_one_quantity_that_falls_is_a_claim_that_fails():
    found = tables(GOOD, APART)
    low = (found["iou"]["arm"] == BEHIND) & (found["iou"]["quantity"] == "frequency")
    found["iou"].loc[low, "value"] -= 0.5
    assert verdicts(found) == [True, True, False, False]


def test_contests_set_each_method_against_a_control_of_its_own():
    first, second = contests(tables(GOOD, APART))
    one = judging.judged(first, draws=200)
    assert list(one["method"]) == [BLOCK, RANDOM] and set(one["control"]) == {LINEARS}
    assert list(one["beats"]) == [True, False]
    other = judging.judged(second, draws=200)
    assert list(other["control"]) == [BEFORE, BEFORE_RANDOM]
    assert list(other["beats"]) == [True, False]


def test_a_threshold_is_chosen_on_pictures_that_were_learned_from():
    rows = [pd.DataFrame({"quantity": "magnitude", "threshold": [0.2, 0.6], "iou": value,
                          "sample": name})
            for name, value in (("learned", [0.1, 0.5]), ("asked", [0.9, 0.4]))]  # fmt: skip
    found = block_answers._judged(rows, 1)
    assert found.values.tolist() == [["asked", "magnitude", 0.6, 0.4]]


def test_the_worlds_pictures_show_one_thing_of_few_kinds_that_stay():
    some = world_pictures(30, kinds=4)
    shown = [one.things for one in some]
    assert len(some) == 30 and {len(one) for one in shown} == {1}
    assert len({one[0].name for one in shown}) <= 4
    assert world_pictures(30, kinds=4).hash == some.hash
    split = labelled(some, 20)
    assert [one.id for one in split.train] == list(some.ids[:20]) and split.held_out
    with pytest.raises(ExperimentError, match="train="):
        labelled(some, 30)


def picture(at: int) -> Sample:
    """One white or red patch on black, with its mask."""
    row, col, name = at % 4, (at // 4) % 4, ("snow", "rose")[at % 2]
    image = Image.new("RGB", (32, 32))
    colour = (255, 255, 255) if name == "snow" else (255, 0, 0)
    image.paste(colour, (8 * col, 8 * row, 8 * col + 8, 8 * row + 8))
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8 * row : 8 * row + 8, 8 * col : 8 * col + 8] = True
    return Sample(f"p{at}", image, things=(Thing(name, mask),))


def planted(n: int = 12) -> Samples:
    some = [picture(at) for at in range(n)]
    return Samples("planted", [one.id for one in some], some.__getitem__, "planted")


@pytest.mark.parametrize("kind", ["toy-gptj", "toy-llama"])
def test_a_mask_of_tokens_is_the_patches_under_it(kind):
    model = bridge(kind)
    for at in (0, 5, 11):
        sample = picture(at)
        found = token_mask(model, sample, 0.5)
        wanted = patches_under(model, sample.things[0].mask, sample.image, 0.5)
        assert len(wanted) == 1
        assert found.nonzero()[:, 0].tolist() == [4 * wanted[0].row + wanted[0].col]


def test_the_study_goes_on_where_it_was(tmp_path, monkeypatch):
    model, out = bridge("toy-gptj"), tmp_path / "new"
    how: dict[str, Any] = {"train": 8, "steps": 3, "batch_size": 4, "trainings": 1, "draws": 20,
                           "share": 0.5, "progress": False}  # fmt: skip
    steps: list[int] = []
    read: list[int] = []
    loss, real = frozen_block_fit._loss, patch_features.features_of
    monkeypatch.setattr(frozen_block_fit, "_loss", lambda *args: steps.append(1) or loss(*args))
    monkeypatch.setattr(patch_features, "features_of", lambda *args: read.append(1) or real(*args))
    report = frozen_block.reproduce(model, planted(), out, command="mmlens reproduce x", **how)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert not any(one in (True, False) for one in report.verdicts["holds"])  # of four pictures
    assert "`mmlens reproduce x`" in report.results.read_text() and "B4" in report.page.read_text()
    assert len(report.contests) == 2
    assert len(steps) == 3 * len(ARMS) and len(read) == 8 + 8  # to learn from; four and four
    again = frozen_block.reproduce(model, planted(), out, **how)
    assert len(steps) == 3 * len(ARMS) and len(read) == 16
    assert again.verdicts.equals(report.verdicts)
    with pytest.raises(CheckpointError, match="holds a training with"):
        frozen_block.reproduce(model, planted(), out, **how, layer=0)
    frozen_block.reproduce(model, planted(), out, **how, layer=0, resume=False)
    assert len(steps) == 6 * len(ARMS)


def test_what_has_no_mask_is_refused(tmp_path):
    some = [Sample(f"p{at}", picture(at).image, things=(Thing("snow"),)) for at in range(4)]
    bare = Samples("bare", [one.id for one in some], some.__getitem__, "bare")
    with pytest.raises(ExperimentError, match="with a mask"):
        frozen_block.reproduce(bridge("toy-gptj"), bare, tmp_path, train=2)
