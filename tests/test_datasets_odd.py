"""What lies in real folders: photos on their side, hidden files, dead links, names of any kind."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge
from PIL import Image

import mmlens as mm
from mmlens import Scores, datasets
from mmlens.datasets import DataError
from mmlens.datasets.caption_pairs import CaptionPair, Listed
from mmlens.datasets.sources import open_pairs
from mmlens.sweep import SweepError, sweep
from mmlens.sweep.top_pictures import picture_activations
from mmlens.tally import Top
from mmlens.train import cache_features, fit
from mmlens.values.errors import WriteError

RED = (255, 0, 0)
coco: Any = inspect.unwrap(datasets.coco)  # what checks annotations in tests reads a sample


def write_picture(path: Path, size: Any = (20, 10), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, RED).save(path, **options)
    return path


# COCO: annotations count stored pixels ------------------------------------------------------------


def marked(width: int, height: int) -> Image.Image:
    """Black, but for a red block off every centre: columns 2 to 6, rows 1 to 3."""
    picture = Image.new("RGB", (width, height))
    picture.paste(RED, (2, 1, 7, 4))
    return picture


def coco_of(folder: Path, orientation: int, width: int, height: int, told: Any = None) -> Any:
    """One photo of a block and its annotation, both in stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    (folder / "val2017").mkdir(parents=True, exist_ok=True)
    marked(width, height).save(folder / "val2017" / "1.png", exif=exif)
    w, h = told or (width, height)
    corners = [2.0, 1.0, 7.0, 1.0, 7.0, 4.0, 2.0, 4.0]
    table = {
        "images": [{"id": 1, "file_name": "1.png", "width": w, "height": h}],
        "categories": [{"id": 3, "name": "block"}],
        "annotations": [{"id": 9, "image_id": 1, "category_id": 3, "bbox": [2.0, 1.0, 5.0, 3.0],
                         "iscrowd": 0, "area": 15.0, "segmentation": [corners]}],
    }  # fmt: skip
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(table))
    return coco(folder)[0]


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(16, 10), (12, 12)])
def test_mask_and_box_are_turned_with_the_photo(tmp_path, orientation, size):
    sample = coco_of(tmp_path, orientation, *size)
    block = np.asarray(sample.image)[..., 0] > 128  # what the photo shows, turned by Pillow
    thing = sample.things[0]
    assert thing.mask is not None and thing.box is not None
    np.testing.assert_array_equal(thing.mask.numpy(), block)
    rows, cols = np.nonzero(block)
    assert thing.box == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


@pytest.mark.filterwarnings("ignore:__array__")
def test_annotations_of_the_upright_photo_stay_and_those_of_another_are_refused(tmp_path):
    sample = coco_of(tmp_path, 6, 16, 10, told=(10, 16))
    assert sample.things[0].mask.shape == (16, 10) and sample.things[0].box == (2, 1, 7, 4)
    with pytest.raises(DataError, match=r"'1.png' has 16 x 10 pixels, .* are for 32 x 20"):
        coco_of(tmp_path, 1, 16, 10, told=(32, 20))


def test_a_thing_without_outline_has_a_box_alone_and_damage_is_named(tmp_path):
    coco_of(tmp_path, 3, 16, 10)
    path = tmp_path / "annotations" / "instances_val2017.json"
    table = json.loads(path.read_text())
    del table["annotations"][0]["segmentation"]
    path.write_text(json.dumps(table))
    thing = coco(tmp_path)[0].things[0]
    assert thing.mask is None and thing.box == (9, 6, 14, 9)
    table["annotations"][0]["category_id"] = 77
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match="The annotation 9 of picture 1 is not written like COCO"):
        _ = coco(tmp_path)[0]
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(DataError, match="is not written like COCO: it has no images and no annot"):
        datasets.coco(tmp_path)


# Folders ------------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_no_samples(tmp_path):
    write_picture(tmp_path / "a.jpg")
    for name in ("._a.jpg", ".git/b.png", "__MACOSX/a.jpg", "in/.ipynb_checkpoints/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"Mac OS X")
    write_picture(tmp_path / "in" / "d.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert datasets.images(tmp_path).ids == ("a.jpg", "in/d.png")
    magma = tmp_path / "magma" / "image_data" / "0"
    magma.mkdir(parents=True)
    (magma / "a.json").write_text(json.dumps({"image_path": "a.jpg", "captions": ["a"]}))
    (magma / "._a.json").write_bytes(b"\0\5Mac")
    write_picture(tmp_path / "magma" / "a.jpg")
    assert datasets.images(tmp_path / "magma").ids == ("a.jpg",)


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.ppm", "a.pgm", "a.jp2", "a.tga"])
def test_every_kind_that_pillow_opens_is_a_sample(tmp_path, name):
    kind = {"jfif": "JPEG", "JPE": "JPEG", "jp2": "JPEG2000"}.get(name[2:])
    write_picture(tmp_path / name, **({"format": kind} if kind else {}))
    (tmp_path / "a.txt").write_text("red")
    samples = datasets.images(tmp_path)
    assert samples.ids == (name,) and samples[0].captions == ("red",)
    shown = np.asarray(samples[0].image, float)
    assert samples[0].image.size == (20, 10) and shown.std() < 130


def test_what_is_left_out_is_counted_aloud(tmp_path):
    write_picture(tmp_path / "a.jpg")
    for name in ("b.jxl", "c.heic", "d.JXL", "e.pdf", "LICENSE", "alone.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("a caption")
    with pytest.warns(UserWarning, match="files are left out") as told:
        assert datasets.images(tmp_path).ids == ("a.jpg",)
    text = str(told[0].message)
    assert "3 files are left out, pictures that this Pillow does not open (1 .heic, 2 .jxl)" in text
    assert "3 files are left out, no pictures (1 .pdf, 1 .txt, 1 without a suffix)" in text


def test_a_dead_link_and_a_pipe_are_named(tmp_path):
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("gone.jpg")
    for read in (datasets.images, open_pairs):
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "b.txt").write_text("b")
        with pytest.raises(DataError, match=r"'b.jpg' is a link to 'gone.jpg', which is not there"):
            read(tmp_path)
    assert len(open_pairs(tmp_path, skip_bad=True)) == 1  # pyright: ignore[reportArgumentType]
    (tmp_path / "b.jpg").unlink()
    os.mkfifo(tmp_path / "b.jpg")
    with pytest.raises(DataError, match="'b.jpg' is a folder, a pipe or a device, and no picture"):
        datasets.images(tmp_path)


@pytest.mark.parametrize("spelled", ["{}", "coco:{}"])
def test_a_folder_that_is_none_is_told_what_it_is(tmp_path, spelled):
    (tmp_path / "file.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name, sentence in [
        (tmp_path / "file.jpg", "is a file: give"),
        (tmp_path / "empty", "holds no (pictures|COCO annotations)"),
        (tmp_path / "none", "is neither a data set nor a folder|There is no folder"),
        ("~nobody-of-that-name/photos", "There is no folder '~nobody-of-that-name/photos'"),
    ]:
        with pytest.raises(DataError, match=sentence):
            mm.dataset(spelled.format(name))


def test_the_home_of_the_user_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_picture(tmp_path / "photos" / "a.jpg")
    assert mm.dataset("~/photos").ids == datasets.images("~/photos").ids == ("a.jpg",)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    write_picture(tmp_path / "in" / "a.jpg")
    real = os.scandir

    def refused(path: Any = ".") -> Any:
        if str(path).endswith("in"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)  # the tests may run as one who may read all
    with pytest.raises(DataError, match=r"The folder '.*in' cannot be read \(Permission denied\)"):
        datasets.images(tmp_path)


# Names that are no UTF-8 --------------------------------------------------------------------------

LATIN = os.fsdecode(b"caf\xe9.png")


def test_a_name_in_another_encoding_is_a_sample_like_any(tmp_path):
    Image.new("RGB", (8, 8), RED).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / LATIN)
    (tmp_path / LATIN).with_suffix(".txt").write_text("red")
    samples = datasets.images(tmp_path)
    assert samples.ids == ("caf\\xe9.png",) and samples[0].captions == ("red",)
    assert samples[0].image.getpixel((0, 0)) == RED and len(samples.hash) == 64
    pairs: Any = open_pairs(tmp_path)
    assert pairs[0].key == "caf\\xe9.png" and len(pairs.fingerprint) == 64


def test_everything_but_a_bridge_is_written_into_a_folder_of_such_a_name(tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xe9sum\xe9")
    folder.mkdir()
    Image.new("RGB", (32, 32), RED).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(folder / LATIN)
    (folder / LATIN).with_suffix(".txt").write_text("a dog")
    model = bridge("toy-gptj")
    seen = mm.look(model, folder / LATIN, caption=" dog", k=2)
    assert b"caf\\xe9" in seen.save(folder / f"{Path(LATIN).stem}.html").read_bytes()
    page = mm.view.explore([seen], [LATIN], title=LATIN).save(folder / "all.html").read_bytes()
    assert b"caf\\xe9.png" in page
    tally, samples = {"activations": [Top(k=1)]}, datasets.images(folder)
    options = {"layer": [0]}
    for _ in range(2):
        done = sweep(picture_activations, model, samples, folder / "sweep", options=options,
                     tallies=tally, progress=False)  # fmt: skip
    assert done.tallies("activations")[0].table(ids=samples.ids)["sample"][0] == "caf\\xe9.png"
    kept = sweep(named, model, samples, folder / "named", progress=False)
    assert list(kept.table("rows")["sample"]) == ["caf\\xe9.png"]
    assert kept.scores("ones", "caf\\xe9.png").shape == (2,)
    cached = cache_features(model.vision, open_pairs(folder), folder / "cache")
    direct = model.vision(model.vision.preprocess(samples[0].image)[None])[0]
    torch.testing.assert_close(cached.tensor(cached[0], None), direct.detach())
    with pytest.raises(WriteError, match="is no name in UTF-8, which the files of a bridge need"):
        fit(model, cached, out=folder / "trained", steps=1, batch_size=1)


def named(model: Any, sample: Any) -> dict[str, Any]:
    return {"rows": pd.DataFrame({"n": [1]}), "ones": Scores(torch.ones(2), ("unit",))}


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"n": 0}, {"n": -3}, {"n": 2.5}, {"n": "9"}, {"seed": 1.5},
                                     {"things": 4}, {"split": "tst"}])  # fmt: skip
def test_numbers_that_make_no_scenes_are_refused(options):
    with pytest.raises(DataError):
        inspect.unwrap(datasets.pictos)(**options)


def test_a_place_that_is_none_is_refused():
    samples = datasets.pictos(n=4)
    assert samples[-1].id == samples[3].id and samples.pick([3, 0]).ids[1] == samples.ids[0]
    for place in (4, -5):
        with pytest.raises(DataError, match=f"There is no sample {place} in pictos held_out"):
            samples[place]
        with pytest.raises(DataError, match=f"There is no sample {place} in pictos held_out"):
            samples.pick([place])
    index: Any = type(samples).__getitem__
    with pytest.raises(DataError, match="has a number, not 'held_out-0-1'"):
        inspect.unwrap(index)(samples, "held_out-0-1")
    assert len(list(samples)) == 4  # a loop ends where the samples do


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -1}, {"shard_size": 0}])
def test_sizes_that_hold_no_picture_are_refused(options, tmp_path):
    pairs = Listed([])
    with pytest.raises(DataError, match="size=.*: write a whole number from 1"):
        cache_features(bridge("toy-gptj").vision, pairs, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


# Damage -------------------------------------------------------------------------------------------


def test_a_cache_of_features_whose_manifest_or_shard_is_damaged_is_made_again(tmp_path):
    pairs = Listed(
        [CaptionPair(Image.new("RGB", (32, 32), (i, 0, 0)), ("a",), str(i)) for i in range(4)]
    )
    vision = bridge("toy-gptj").vision

    def cached() -> torch.Tensor:
        found = cache_features(vision, pairs, tmp_path, shard_size=2)
        return torch.stack([found.tensor(pair, None) for pair in found])

    whole = cached()
    (folder,) = tmp_path.iterdir()
    for name, data in [("manifest.json", b"{cut"), ("manifest.json", b"[]")]:
        (folder / name).write_bytes(data)
        assert torch.equal(cached(), whole)
    (folder / "features-00001.safetensors").unlink()
    assert torch.equal(cached(), whole)
    (folder / "features-00001.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"is damaged .*: delete .*, and the features are computed"):
        cached()
    (folder / "pairs-00000.jsonl").write_bytes(b'{"key"')
    with pytest.raises(DataError, match=r"pairs-00000.jsonl' is damaged"):
        cached()


def test_tables_and_datasets_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "captions.csv").write_text("file_name,caption\na.jpg," + "x" * 200_000)
    with pytest.raises(DataError, match="'captions.csv' is no table in CSV: field larger"):
        datasets.images(tmp_path)
    pytest.importorskip("datasets")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{cut")
    with pytest.raises(DataError, match="saved' cannot be read as a dataset: "):
        mm.dataset(str(tmp_path / "saved"))


@pytest.mark.parametrize("text", ["{cut", "[]", '{"question": {"name": "q"}, "chunk": "2"}'])
def test_a_manifest_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SweepError, match="is not the manifest of a sweep"):
        mm.Sweep(tmp_path)
