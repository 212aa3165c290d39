"""What several rooms share stands in one place: seeds, boxes of patches, optional packages."""

from __future__ import annotations

import sys

import pytest
import torch
from bridges import bridge
from PIL import Image

from mmlens.causal.picture_boxes import patch_boxes, seen_box
from mmlens.runtime.seeding import seed_of, seeded
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import Patch
from mmlens.values.optional_packages import package

SEED = 473896420  # CRC-32 of "7 cat.png"


def test_a_seed_of_a_name_is_the_same_in_every_process():
    assert seed_of(7, "cat.png") == SEED
    assert len({seed_of(7, "dog.png"), seed_of(8, "cat.png"), SEED}) == 3


def test_what_is_drawn_from_a_seed_leaves_the_callers_generator_alone():
    torch.manual_seed(3)
    alone = torch.rand(4)
    torch.manual_seed(3)
    with seeded(5):
        first = torch.rand(2)
    assert torch.equal(torch.rand(4), alone)
    with seeded(5):
        assert torch.equal(torch.rand(2), first)


@pytest.mark.parametrize("size", [(32, 32), (90, 47), (20, 61)])
def test_the_seen_part_of_a_picture_is_what_its_patches_cover(size):
    model = bridge("toy-gpt2")
    boxes = patch_boxes(model, Image.new("RGB", size))
    rows, cols = model.vision.grid
    assert list(boxes) == [Patch(row, col) for row in range(rows) for col in range(cols)]
    left, top, far, low = zip(*boxes.values(), strict=True)
    around = (min(left), min(top), max(far), max(low))
    assert seen_box(model, *size) == pytest.approx(around, abs=0.5)
    for patch, box in boxes.items():  # neighbours share an edge, so nothing is seen twice
        right, below = Patch(patch.row, patch.col + 1), Patch(patch.row + 1, patch.col)
        if right in boxes:
            assert boxes[right][0] == box[2]
        if below in boxes:
            assert boxes[below][1] == box[3]


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch, tmp_path):
    with pytest.raises(CapabilityError, match=r"This needs the package 'nonesuch'.*mmlens\[coco\]"):
        package("nonesuch.deeper", "coco")
    (tmp_path / "half_there.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CapabilityError, match="bert_score needs the package 'what_it_needs'"):
        package("half_there", "metrics", "bert_score")
    assert package("json.decoder", "train") is sys.modules["json.decoder"]
