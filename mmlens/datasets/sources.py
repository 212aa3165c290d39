"""`open_pairs`: a folder, tar shards or a Hugging Face dataset as `CaptionPairs`.

Tar shards are read by the `webdataset` package, datasets by `datasets`; both come with
`pip install 'mmlens[train]'` and are imported only when they are needed. Neither decodes a picture:
that is done once, by `mmlens.values.pictures`, which names the picture when it cannot.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmlens.datasets.caption_pairs import (
    CaptionPair,
    CaptionPairs,
    DataError,
    Listed,
    Streamed,
    captions_in,
)
from mmlens.datasets.folders import CAPTIONS, read_folder
from mmlens.values.errors import nearest
from mmlens.values.optional_packages import package
from mmlens.values.picture_files import readable

SHUFFLED = 2000
"""How many pairs of a stream are held back to be shuffled (their files' bytes, undecoded)."""


def open_pairs(
    source: Any,
    *,
    image: str = "image",
    caption: str | None = "caption",
    split: str = "train",
    skip_bad: bool = False,
) -> CaptionPairs:
    """Captioned pictures from wherever they are.

    Args:
        source: a folder (see `mmlens.datasets.folders`); tar shards: a path, a list, or a pattern
            "cc3m-{00000..00331}.tar"; a `datasets.Dataset`, a folder that it was saved to, or
            "hf:NAME" of one on the Hugging Face Hub; or a list of `CaptionPair`.
        image, caption: the columns of a dataset; with `caption=None` its pictures have none.
        split: which part of a dataset that has several.
        skip_bad: count pictures that cannot be read (`.bad`) and go on, instead of refusing.

    Raises:
        DataError: nothing is there, or it is none of these.
    """
    if isinstance(source, CaptionPairs):
        return source
    if type(source).__module__.split(".")[0] == "datasets":
        return _from_dataset(source, image, caption, split, skip_bad)
    if isinstance(source, (list, tuple)) and source and isinstance(source[0], CaptionPair):
        return Listed(list(source), skip_bad=skip_bad)
    if isinstance(source, (list, tuple)) and source:
        return _from_shards([str(item) for item in source], skip_bad)
    if not isinstance(source, (str, Path)):
        raise DataError(
            f"A {type(source).__name__} holds no captioned pictures: give a folder, tar shards, a"
            " datasets.Dataset or a list of mmlens.train.CaptionPair."
        )
    text, path = str(source), Path(source)
    if text.startswith("hf:"):
        dataset = _loaded(text, lambda library: library.load_dataset(text[3:], split=split))
        return _from_dataset(dataset, image, caption, split, skip_bad)
    if text.endswith((".tar", ".tar.gz", ".tgz")):
        return _from_shards([text], skip_bad)
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        dataset = _loaded(text, lambda library: library.load_from_disk(text))
        return _from_dataset(dataset, image, caption, split, skip_bad)
    if shards := sorted(str(shard) for shard in path.glob("*.tar")) if path.is_dir() else []:
        return _from_shards(shards, skip_bad)
    return read_folder(path, skip_bad)


def _loaded(name: str, load: Callable[[Any], Any]) -> Any:
    """A dataset of the `datasets` library, or a sentence that says why there is none."""
    library = package("datasets", "train")
    try:
        return load(library)
    except Exception as error:  # its readers and the network raise a dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name!r} cannot be read as a dataset: {reason}") from error


def _from_shards(patterns: Sequence[str], skip_bad: bool) -> Streamed:
    """webdataset: samples are files of one name, `000017.jpg` and `000017.txt` or `.json`."""
    wds = package("webdataset", "train")
    shards = [shard for pattern in patterns for shard in wds.shardlists.expand_urls(pattern)]
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(shard.encode())
        if "://" not in shard and not shard.startswith("pipe:"):
            if not Path(shard).is_file():
                raise DataError(f"There is no tar shard {shard!r}.")
            status = Path(shard).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())

    def read(seed: int | None) -> Iterator[CaptionPair | tuple[str, str]]:
        pipeline = wds.WebDataset(
            shards,
            shardshuffle=False if seed is None else len(shards),
            seed=seed or 0,
            nodesplitter=None,
            workersplitter=None,
            empty_check=False,
        )
        pipeline = pipeline.shuffle(SHUFFLED, seed=seed) if seed is not None else pipeline
        try:
            yield from (_from_sample(sample) for sample in pipeline)
        except (OSError, ValueError, tarfile.TarError) as error:
            raise DataError(f"The tar shards cannot be read: {error}") from None

    return Streamed(read, digest.hexdigest(), f"{len(shards)} tar shards", skip_bad)


def _from_sample(sample: dict[str, Any]) -> CaptionPair | tuple[str, str]:
    shard = Path(str(sample.get("__url__", ""))).name
    key = f"{sample['__key__']} of {shard}"
    picture = next((v for k, v in sample.items() if f".{k.lower()}" in readable()), None)
    if picture is None:
        return key, f"{key!r} has no picture: there is {', '.join(_fields(sample)) or 'nothing'}."
    captions = captions_in(sample.get("txt", b"").decode("utf-8", "replace").splitlines())
    if not captions and "json" in sample:
        try:
            row = json.loads(sample["json"])
        except ValueError:
            return key, f"the json of {key!r} is not JSON."
        captions = next((captions_in(row[name]) for name in CAPTIONS if name in row), ())
    if not captions:
        return (
            key,
            f"{key!r} has no caption: there is {', '.join(_fields(sample))}, no txt or json.",
        )
    return CaptionPair(picture, captions, key)


def _fields(sample: dict[str, Any]) -> list[str]:
    return [name for name in sample if not name.startswith("__")]


class _Column(Sequence[CaptionPair]):
    """The rows of a dataset as pairs; a row is read when it is asked for."""

    def __init__(self, dataset: Any, image: str, caption: str | None) -> None:
        self.dataset, self.image, self.caption = dataset, image, caption

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return _from_row(self.dataset[index], index, self.image, self.caption)


class _Rows(Listed):
    """A dataset: its own fingerprint says whether it changed."""

    @property
    def fingerprint(self) -> str:
        return str(self._pairs.dataset._fingerprint)  # pyright: ignore[reportAttributeAccessIssue]


def _from_dataset(
    dataset: Any, image: str, caption: str | None, split: str, skip_bad: bool
) -> CaptionPairs:
    datasets = package("datasets", "train")
    if isinstance(dataset, dict):
        if split not in dataset:
            raise DataError(f"The dataset has no split {split!r}: {nearest(split, dataset)}")
        dataset = dataset[split]
    names = dataset.column_names or []
    for column in (image, caption):
        if names and column is not None and column not in names:
            raise DataError(f"The dataset has no column {column!r}: {nearest(column, names)}")
    if isinstance((dataset.features or {}).get(image), datasets.Image):
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    if isinstance(dataset, datasets.Dataset):
        return _Rows(_Column(dataset, image, caption), "the dataset", skip_bad)

    def read(seed: int | None) -> Iterator[CaptionPair | tuple[str, str]]:
        rows = dataset if seed is None else dataset.shuffle(seed=seed, buffer_size=SHUFFLED)
        return (_from_row(row, i, image, caption) for i, row in enumerate(rows))

    mark = f"{getattr(dataset, '_fingerprint', '')} {names} {dataset.info.dataset_name}"
    return Streamed(read, hashlib.sha256(mark.encode()).hexdigest(), "the dataset", skip_bad)


def _from_row(row: dict[str, Any], index: int, image: str, caption: str | None) -> CaptionPair:
    """A row without a caption is a pair without one, which the feed refuses."""
    source, key = row[image], f"row {index}"
    if isinstance(source, dict):  # datasets.Image(decode=False)
        name = source.get("path")
        key = f"{key} ({Path(name).name})" if name else key
        source = source["bytes"] if source.get("bytes") is not None else name
    return CaptionPair(source, captions_in(row[caption]) if caption is not None else (), key)
