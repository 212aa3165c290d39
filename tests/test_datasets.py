"""Data sets: the same sample whenever it is asked for, masks that are true, hashes that tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mmlens as mm
from mmlens import datasets
from mmlens.datasets import DataError, Sample, Samples
from mmlens.values.errors import PictureError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_picture(path: Path, colour: tuple[int, int, int] = RED, size: Any = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """Three pictures of 20 x 10: one with a polygon and a crowd (RLE), one with nothing."""
    folder = tmp_path / "coco"
    names = {139: "000000000139.png", 25: "000000000025.png", 400: "000000000400.png"}
    for name in names.values():
        write_picture(folder / "val2017" / name)
    pictures = [{"id": i, "file_name": n, "width": 20, "height": 10} for i, n in names.items()]
    captions = [
        {"id": 1, "image_id": 139, "caption": "A dog on a bed. "},
        {"id": 2, "image_id": 25, "caption": "A cat."},
        {"id": 3, "image_id": 139, "caption": "Someone's dog."},
    ]
    square = [4.0, 2.0, 12.0, 2.0, 12.0, 8.0, 4.0, 8.0]
    kinds = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    things = [
        {"id": 7, "image_id": 139, "category_id": 18, "iscrowd": 0, "area": 48.0,
         "bbox": [4.0, 2.0, 8.0, 6.0], "segmentation": [square]},
        {"id": 8, "image_id": 139, "category_id": 1, "iscrowd": 1, "area": 10.0,
         "bbox": [0.0, 0.0, 1.0, 10.0],
         "segmentation": {"size": [10, 20], "counts": [0, 10, 190]}},
    ]  # fmt: skip
    tables = {
        "captions": {"images": pictures, "annotations": captions},
        "instances": {"images": pictures, "annotations": things, "categories": kinds},
    }
    for kind, table in tables.items():
        path = folder / "annotations" / f"{kind}_val2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(table))
    return folder


# The bundled world ----------------------------------------------------------------------------


def test_a_scene_is_the_same_alone_and_after_others_and_its_masks_are_those_of_the_world():
    from mmlens.pictos.world import World

    samples = datasets.pictos("held_out", 6, seed=3)
    assert [sample.id for sample in samples] == list(samples.ids)
    sample, scene = samples[4], World("held_out", 3).scene(4)
    assert sample.id == samples.ids[4] == "held_out-3-4"
    assert sample.image.tobytes() == scene.image.tobytes()
    assert sample.captions[0] == scene.caption and set(scene.captions) <= set(sample.captions)
    assert [thing.name for thing in sample.things] == [thing.name for thing in scene.objects]
    for thing, mask in zip(sample.things, scene.masks, strict=True):
        assert thing.mask is not None and torch.equal(thing.mask, mask)
        x0, y0, x1, y1 = (int(edge) for edge in thing.box or ())
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()


def test_scenes_of_one_thing_and_one_style_can_be_asked_for():
    samples = datasets.pictos("train", 5, things=1, style="symbolic")
    assert all(len(sample.things) == 1 for sample in samples)
    assert samples.hash != datasets.pictos("train", 5).hash
    assert "1 things, symbolic" in samples.name


def test_the_hash_changes_with_what_is_in_the_data_and_with_nothing_else():
    same = {datasets.pictos("held_out", 5).hash for _ in range(2)}
    others = [("held_out", 6, 0), ("held_out", 5, 1), ("train", 5, 0)]
    assert len(same | {datasets.pictos(*other).hash for other in others}) == 4


# COCO -----------------------------------------------------------------------------------------


def test_coco_gives_captions_and_exact_masks_in_the_order_of_ids(coco_folder):
    samples = datasets.coco(coco_folder)
    assert samples.ids == ("25", "139", "400")
    cat, dogs, empty = samples
    assert dogs.captions == ("A dog on a bed.", "Someone's dog.") and cat.captions == ("A cat.",)
    assert empty.captions == () and empty.things == () and empty.image.size == (20, 10)
    dog, crowd = dogs.things
    assert dogs.names == ("dog", "person") and dogs.split == "val2017"
    expected = torch.zeros(10, 20, dtype=torch.bool)
    expected[2:8, 4:12] = True
    assert torch.equal(dog.mask, expected) and dog.box == (4.0, 2.0, 12.0, 8.0)
    column = torch.zeros(10, 20, dtype=torch.bool)
    column[:, 0] = True
    assert torch.equal(crowd.mask, column)


def test_coco_works_with_captions_alone_and_says_what_is_missing(coco_folder, tmp_path):
    whole = datasets.coco(coco_folder)
    (coco_folder / "annotations" / "instances_val2017.json").unlink()
    alone = datasets.coco(coco_folder)
    assert alone[1].captions == whole[1].captions and alone[1].things == ()
    assert alone.hash != whole.hash
    with pytest.raises(DataError, match=r"of 'train2017': .*and there is captions_val2017.json"):
        datasets.coco(coco_folder, "train2017")
    with pytest.raises(DataError, match="There is no folder"):
        datasets.coco(tmp_path / "nowhere")
    (coco_folder / "annotations" / "captions_val2017.json").write_text("{}")
    with pytest.raises(DataError, match="not written like COCO: it has no images and no annotati"):
        datasets.coco(coco_folder)


# Folders and Hugging Face -----------------------------------------------------------------------


def test_a_folder_gives_pictures_with_captions_where_there_are(tmp_path):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b" / "c.jpg", BLUE)
    (tmp_path / "a.txt").write_text("A red thing.\n\nRed.\n")
    samples = datasets.images(tmp_path)
    assert samples.ids == ("a.png", "b/c.jpg")
    assert [sample.captions for sample in samples] == [("A red thing.", "Red."), ()]
    assert samples[0].image.getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    "table",
    [
        {"a.png": "Red.", "b.png": ["Blue.", "Sky."]},
        [{"file": "a.png", "text": "Red."}, {"image": "b.png", "captions": ["Blue.", "Sky."]}],
    ],
)  # fmt: skip
def test_captions_json_is_read_in_both_forms_and_trains_too(tmp_path, table):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png", BLUE)
    (tmp_path / "captions.json").write_text(json.dumps(table))
    samples = datasets.images(tmp_path)
    assert [sample.captions for sample in samples] == [("Red.",), ("Blue.", "Sky.")]
    from mmlens.train import open_pairs

    assert [pair.captions for pair in open_pairs(tmp_path)] == [("Red.",), ("Blue.", "Sky.")]
    (tmp_path / "captions.json").write_text('["Red."]')
    with pytest.raises(DataError, match=r"'captions.json' holds no rows: write a list of objects"):
        datasets.images(tmp_path)


def test_a_copied_folder_keeps_its_hash_and_a_changed_one_does_not(tmp_path):
    for name in ("one", "two"):
        write_picture(tmp_path / name / "a.png")
        (tmp_path / name / "a.txt").write_text("Red.")
    one, two = (datasets.images(tmp_path / name) for name in ("one", "two"))
    assert one.hash == two.hash
    (tmp_path / "two" / "a.txt").write_text("Green.")
    assert datasets.images(tmp_path / "two").hash != one.hash
    write_picture(tmp_path / "one" / "a.png", size=(99, 99))
    assert datasets.images(tmp_path / "one").hash != one.hash


def test_a_broken_picture_is_named_when_it_is_opened_and_not_before(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    sample = datasets.images(tmp_path)[0]
    with pytest.raises(PictureError, match=r"bad\.png"):
        _ = sample.image


def test_a_hugging_face_data_set_is_read_row_by_row():
    hf = pytest.importorskip("datasets")
    rows = {
        "image": [Image.new("RGB", (4, 4), c) for c in (RED, BLUE)],
        "caption": [["R", "r"], []],
    }
    data = hf.Dataset.from_dict(rows, features=hf.Features(
        image=hf.Image(), caption=hf.Sequence(hf.Value("string"))))  # fmt: skip
    samples = datasets.hugging_face(data)
    assert samples.ids == ("row 0", "row 1") and samples[1].image.getpixel((0, 0)) == BLUE
    assert [sample.captions for sample in samples] == [("R", "r"), ()]
    assert mm.dataset(data).hash == samples.hash != datasets.hugging_face(data, caption=None).hash
    assert datasets.hugging_face(data, caption=None)[0].captions == ()
    with pytest.raises(DataError, match="has no length: save it as a folder"):
        datasets.hugging_face(data.to_iterable_dataset())


# Names and slices -------------------------------------------------------------------------------


def test_a_slice_is_a_data_set_of_its_own_hash():
    whole = datasets.pictos("held_out", 10)
    some = whole[2:8:2]
    assert some.ids == tuple(whole.ids[i] for i in (2, 4, 6)) and len(some) == 3
    assert some[1].id == whole[4].id == some[-2].id
    assert some.hash == whole[2:8:2].hash != whole[2:7].hash != whole.hash
    with pytest.raises(IndexError, match="There is no sample 3 in 3 of pictos held_out"):
        _ = some[3]


def test_every_spelling_finds_its_data(coco_folder, tmp_path, monkeypatch):
    assert mm.dataset("pictos:train:7:2").hash == datasets.pictos("train", 7, 2).hash
    assert len(mm.dataset("pictos")) == 200
    plain = datasets.coco(coco_folder)
    assert mm.dataset(f"coco:{coco_folder}").hash == plain.hash
    assert mm.dataset(f"coco:{coco_folder}:val2017").hash == plain.hash
    assert mm.dataset(plain) is plain
    assert mm.dataset(str(coco_folder / "val2017")).ids[0] == "000000000025.png"
    asked: list[Any] = []
    read = "mmlens.datasets.spec.hugging_face"
    monkeypatch.setattr(read, lambda *a, **k: asked.append((a, k)) or plain)
    mm.dataset("hf:some/name:test")
    assert asked == [(("hf:some/name",), {"split": "test"})]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("pictos:held_out:many", "is no part of the bundled world: write pictos:SPLIT:NUMBER"),
        ("pictos:heldout:5", "there is no such split"),
        ("pictos:held_out:0", "n=0: write a whole number from 1 to 1000000"),
        (
            "nowhere",
            "'nowhere' is neither a data set nor a folder: write pictos:held_out:200, coco",
        ),
    ],
)
def test_a_wrong_name_is_told_what_to_write(text, sentence):
    with pytest.raises(DataError, match=sentence):
        mm.dataset(text)


def test_two_samples_of_one_name_are_refused():
    with pytest.raises(DataError, match="Two samples of mine are called 'a'"):
        Samples("mine", ["a", "a"], lambda i: Sample("a", None), "hash")
    with pytest.raises(DataError, match="There are no pictures in mine"):
        Samples("mine", [], lambda i: Sample("a", None), "hash")
