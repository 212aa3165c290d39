"""Captioned pictures from folders, tar shards and datasets, and the cache of their features."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from bridges import bridge
from PIL import Image

from mmlens.datasets.caption_pairs import Listed
from mmlens.families import toy
from mmlens.train import CaptionPair, DataError, cache_features, open_pairs
from mmlens.train.caption_loss import Speller
from mmlens.train.feed import Feed
from mmlens.values.errors import CapabilityError, CheckpointError, NumericsError, PictureError


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    toy.picture(seed=seed).save(path)
    return path


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    toy.picture(seed=seed).save(out, "PNG")
    return out.getvalue()


def found(pairs: Any) -> dict[str, tuple[str, ...]]:
    """Key and captions of all pairs, whose pictures are opened as well."""
    assert all(pair.picture.size == (32, 32) for pair in pairs)
    return {pair.key: pair.captions for pair in pairs}


# Folders ------------------------------------------------------------------------------------------


def test_a_text_lies_beside_each_picture(tmp_path):
    put(tmp_path / "a.png").with_suffix(".txt").write_text("a dog\n\n a brown dog \n")
    put(tmp_path / "more" / "b.JPG").with_suffix(".txt").write_text("a cat")
    assert found(open_pairs(tmp_path)) == {
        "a.png": ("a dog", "a brown dog"),
        "more/b.JPG": ("a cat",),
    }


@pytest.mark.parametrize("name, text", [
    ("captions.jsonl", '{"file_name": "x/a.png", "captions": ["a dog", "a brown dog"]}\n'),
    ("metadata.jsonl", '{"file_name": "x/a.png", "text": "a dog"}\n\n'
                       '{"file_name": "x/a.png", "text": "a brown dog"}\n'),
    ("captions.csv", "image,caption\nx/a.png,a dog\nx/a.png,a brown dog\n"),
])  # fmt: skip
def test_a_table_names_pictures_and_captions(tmp_path, name, text):
    put(tmp_path / "x" / "a.png")
    (tmp_path / name).write_text(text)
    assert found(open_pairs(str(tmp_path))) == {"x/a.png": ("a dog", "a brown dog")}


def test_the_layout_that_limber_was_trained_from(tmp_path):
    put(tmp_path / "images" / "0" / "a.png")
    (tmp_path / "image_data" / "0").mkdir(parents=True)
    row = {"image_path": "images/0/a.png", "captions": ["a dog"], "metadata": {}}
    (tmp_path / "image_data" / "0" / "a.json").write_text(json.dumps(row))
    assert found(open_pairs(tmp_path)) == {"images/0/a.png": ("a dog",)}


@pytest.mark.parametrize("files, sentence", [
    ({}, "holds no captioned pictures: put dog.txt beside dog.jpg"),
    ({"captions.jsonl": '{"file_name": "a.png", "caption": "a dog"}'}, "'a.png', which 'captions"),
    ({"captions.jsonl": "{"}, "line 1 of 'captions.jsonl' is not JSON"),
    ({"captions.jsonl": "[1]"}, "line 1 of 'captions.jsonl' is a list, not an object"),
    ({"captions.csv": "file,captoin\na.png,dog"}, "has no 'caption': did you mean 'captoin'"),
    ({"image_data/0/a.json": "{}"}, "does not say image_path"),
    ({"a.png": "", "a.txt": "caf\xe9"}, "'a.txt' is not a text in UTF-8"),
])  # fmt: skip
def test_data_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, files, sentence):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(DataError) as refused:
        open_pairs(tmp_path)
    assert sentence in str(refused.value)


def test_a_picture_without_caption_is_refused_by_name_or_counted(tmp_path):
    put(tmp_path / "a.png").with_suffix(".txt").write_text("a dog")
    put(tmp_path / "b.png").with_suffix(".txt").write_text(" \n")
    with pytest.raises(DataError, match=r"'b.png' has no caption in 'b.txt'\. \(skip_bad=True"):
        open_pairs(tmp_path)
    pairs = open_pairs(tmp_path, skip_bad=True)
    assert len(pairs) == 1 and list(pairs.bad) == ["b.png"]


@pytest.mark.parametrize("source, sentence", [
    ("no/such/folder", "There is no folder 'no/such/folder'"),
    ("no-such-{0..2}.tar", "There is no tar shard 'no-such-0.tar'"),
    (3, "A int holds no captioned pictures"),
])  # fmt: skip
def test_what_is_no_data_is_refused(source, sentence):
    with pytest.raises(DataError, match=sentence):
        open_pairs(source)


# Tar shards and datasets --------------------------------------------------------------------------


def shard(path: Path, samples: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in samples.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_tar_shards_are_read_in_an_order_of_the_seed(tmp_path):
    pytest.importorskip("webdataset")
    for part in range(2):
        files = {}
        for i in range(4):
            files |= {f"{part}{i}.png": png(i), f"{part}{i}.txt": f"dog {part}{i}".encode()}
        shard(tmp_path / f"set-{part}.tar", files)
    pairs = open_pairs(str(tmp_path / "set-{0..1}.tar"))
    assert pairs.fingerprint == open_pairs(str(tmp_path / "set-{0..1}.tar")).fingerprint
    plain = found(pairs)
    assert [*plain] == [f"{p}{i} of set-{p}.tar" for p in range(2) for i in range(4)]
    assert plain["11 of set-1.tar"] == ("dog 11",)
    orders = [[pair.key for pair in pairs.shuffled(seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == [*plain]
    assert len(found(open_pairs(tmp_path))) == 8
    keys = [pair.key for pair in islice(pairs.stream(1), 20)]
    assert [pair.key for pair in islice(pairs.stream(1, start=5), 15)] == keys[5:]


def test_a_sample_without_caption_is_refused_by_name_or_counted(tmp_path):
    pytest.importorskip("webdataset")
    files = {"a.png": png(), "a.json": b'{"caption": "a dog"}', "b.png": png()}
    path = shard(tmp_path / "set.tar", files)
    with pytest.raises(DataError, match=r"'b of set.tar' has no caption: there is png"):
        list(open_pairs(path))
    pairs = open_pairs(path, skip_bad=True)
    assert found(pairs) == {"a of set.tar": ("a dog",)} and len(pairs.bad) == 1
    shard(path, {"a.png": png(), "a.json": b"{"})
    with pytest.raises(DataError, match=r"the json of 'a of set.tar' is not JSON"):
        list(open_pairs(path))
    path.write_bytes(b"no tar at all")
    with pytest.raises(DataError, match="The tar shards cannot be read"):
        list(open_pairs(path))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(CapabilityError, match=r"'webdataset', .* pip install 'mmlens\[train\]'"):
        open_pairs(shard(tmp_path / "set.tar", {}))


def test_a_dataset_in_memory_or_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {"photo": [toy.picture(seed=i) for i in range(3)], "said": ["dog", "cat", "car"]}
    features = datasets.Features({"photo": datasets.Image(), "said": datasets.Value("string")})
    data = datasets.Dataset.from_dict(columns, features=features)
    pairs = open_pairs(data, image="photo", caption="said")
    assert len(pairs) == 3 and found(pairs) == {
        f"row {i}": (w,) for i, w in enumerate(columns["said"])
    }
    with pytest.raises(DataError, match="no column 'phto': did you mean 'photo'"):
        open_pairs(data, image="phto", caption="said")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "saved")
    assert len(open_pairs(tmp_path / "saved", image="photo", caption="said")) == 3
    with pytest.raises(DataError, match="no split 'test': there is 'train'"):
        open_pairs(tmp_path / "saved", image="photo", caption="said", split="test")
    stream = open_pairs(data.to_iterable_dataset(), image="photo", caption="said")
    assert len(found(stream)) == 3


# Batches ------------------------------------------------------------------------------------------


def feed(pairs: Listed, **options: Any) -> Feed:
    return Feed(pairs, bridge("toy-gptj").vision.pixels, Speller(toy.tokenizer()), 4, **options)


def some(n: int, bad: int | None = None, **options: Any) -> Listed:
    pairs = [CaptionPair(b"oops" if i == bad else png(i), ("a dog",), f"{i}.png") for i in range(n)]
    return Listed(pairs, **options)


def test_a_bad_picture_is_refused_by_name_or_has_no_targets():
    with pytest.raises(PictureError, match=r"'2\.png': .* is not a picture"):
        next(iter(feed(some(4, bad=2), seed=None)))
    batch = next(iter(feed(some(4, bad=2, skip_bad=True), seed=None)))
    assert list(batch.bad) == ["2.png"]
    assert (batch.captions.labels[2] == -100).all() and (batch.captions.labels[1] != -100).any()
    with pytest.raises(DataError, match="Not one picture of a batch can be read"):
        next(iter(feed(some(1, bad=0, skip_bad=True), seed=None)))
    with pytest.raises(DataError, match="There are no captioned pictures"):
        next(iter(feed(Listed([]))))


def test_processes_share_a_batch_and_workers_keep_its_order():
    whole = iter(feed(some(8)))
    halves = [iter(feed(some(8), rank=rank, world=2)) for rank in range(2)]
    for _ in range(3):
        together = [next(half) for half in halves]
        batch = next(whole)
        assert torch.equal(batch.inputs, torch.cat([half.inputs for half in together]))
        assert batch.seeds == [seed for half in together for seed in half.seeds]
    later, ahead = feed(some(8), start=4), iter(feed(some(8), start=4).loader(workers=2))
    assert all(a.seeds == next(ahead).seeds for a, _ in zip(later, range(3), strict=False))


# The cache ----------------------------------------------------------------------------------------


def test_features_are_computed_once_and_are_the_encoder_s(tmp_path, monkeypatch):
    vision, pairs = bridge("toy-gptj").vision, some(5)
    cached = cache_features(vision, pairs, tmp_path, batch_size=2, shard_size=3)
    pixels = torch.stack([vision.preprocess(pair.picture) for pair in pairs])
    got = torch.stack([cached.tensor(pair, None) for pair in cached])
    assert torch.allclose(got, vision(pixels), atol=1e-5)
    assert [shard["count"] for shard in cached.manifest["shards"]] == [3, 2]
    assert found_keys(cached) == found_keys(pairs) and cached[0].captions == ("a dog",)
    monkeypatch.setattr(type(pairs), "tensor", lambda *_: pytest.fail("computed again"))
    again = cache_features(vision, pairs, tmp_path)
    assert again.fingerprint == cached.fingerprint and len(again) == 5


def found_keys(pairs: Any) -> list[str]:
    return [pair.key for pair in pairs]


def test_a_cache_that_was_stopped_goes_on(tmp_path):
    vision, calls = bridge("toy-gptj").vision, []

    class Stopped(Listed):
        def tensor(self, pair: CaptionPair, pixels: Any) -> torch.Tensor:
            calls.append(pair.key)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return super().tensor(pair, pixels)

    pairs = Stopped([*some(6)])
    with pytest.raises(KeyboardInterrupt):
        cache_features(vision, pairs, tmp_path, shard_size=2)
    cached = cache_features(vision, pairs, tmp_path, shard_size=2)
    assert calls == ["0.png", "1.png", "2.png", "3.png", "2.png", "3.png", "4.png", "5.png"]
    assert found_keys(cached) == found_keys(pairs)


def test_half_the_bits_are_half_the_size_and_too_large_features_are_refused(tmp_path):
    vision = bridge("toy-gptj").vision
    halves = cache_features(vision, some(4), tmp_path, half=True)
    full = cache_features(vision, some(4), tmp_path)
    assert halves.folder != full.folder
    (a,), (b,) = ([*c.folder.glob("*.safetensors")] for c in (halves, full))
    assert a.stat().st_size < 0.6 * b.stat().st_size
    assert torch.allclose(halves.tensor(halves[1], None), full.tensor(full[1], None), atol=1e-2)

    def loud(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out * 1e6

    handle = vision.register_forward_hook(loud)
    try:
        with pytest.raises(NumericsError, match="too large for float16: use half=False"):
            cache_features(vision, some(3), tmp_path, half=True)
    finally:
        handle.remove()


def test_bad_pictures_are_refused_or_listed_in_the_manifest(tmp_path):
    vision = bridge("toy-gptj").vision
    with pytest.raises(PictureError, match=r"2\.png"):
        cache_features(vision, some(4, bad=2), tmp_path)
    cached = cache_features(vision, some(4, bad=2, skip_bad=True), tmp_path)
    assert len(cached) == 3 and list(cached.bad) == ["2.png"]


def test_features_of_another_encoder_are_refused(tmp_path):
    cached = cache_features(bridge("toy-gptj").vision, some(2), tmp_path)
    with pytest.raises(CheckpointError, match="are of another encoder"):
        cached.check(bridge("toy-gptj", seed=1).vision)


def test_a_picture_that_changes_is_another_one(tmp_path):
    put(tmp_path / "a.png").with_suffix(".txt").write_text("a dog")
    before = open_pairs(tmp_path).fingerprint
    assert open_pairs(tmp_path).fingerprint == before
    Image.new("RGB", (7, 7)).save(tmp_path / "a.png")
    assert open_pairs(tmp_path).fingerprint != before
