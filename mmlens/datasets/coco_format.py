"""COCO (Lin et al. 2014, arXiv:1405.0312) from a local folder, and whatever is written like it.

    annotations/captions_val2017.json     what five people said of each picture
    annotations/instances_val2017.json    80 kinds of things with their outlines
    val2017/000000000139.jpg              the pictures

Outlines become masks by pycocotools (`pip install 'mmlens[coco]'`), the reference implementation.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from mmlens.datasets.extra import package
from mmlens.datasets.pairs import DataError, captions_in
from mmlens.datasets.sample import Sample, Samples, Thing, content_hash


def coco(folder: str | Path, split: str = "val2017") -> Samples:
    """Pictures with captions and things, in the order of their COCO ids, which are the sample ids.

    Captions are those of `captions_SPLIT.json`; things those of `instances_SPLIT.json`, crowds
    included, each with mask and box. One of the two files may be missing. The hash covers the two
    files, not the pictures.

    Raises:
        DataError: neither file is there, or one cannot be read.
        CapabilityError: pycocotools is not installed and there are outlines to read.
    """
    folder = Path(folder)
    files = {kind: folder / "annotations" / f"{kind}_{split}.json" for kind in _KINDS}
    there = {kind: path.read_bytes() for kind, path in files.items() if path.is_file()}
    if not there:
        raise DataError(
            f"{str(folder)!r} holds no COCO annotations of {split!r}: there should be"
            f" annotations/captions_{split}.json and annotations/instances_{split}.json,"
            f" {_has(folder)}."
        )
    tables = {kind: _table(data, files[kind].name) for kind, data in there.items()}
    pictures = {row["id"]: row["file_name"] for table in tables.values() for row in table["images"]}
    said: dict[Any, list[str]] = defaultdict(list)
    for row in tables.get("captions", {}).get("annotations", ()):
        said[row["image_id"]].append(row["caption"])
    outlines = _Outlines(tables["instances"]) if "instances" in tables else None
    order = sorted(pictures)

    def read(place: int) -> Sample:
        at = order[place]
        things = outlines.of(at) if outlines is not None else ()
        source = folder / split / Path(pictures[at]).name
        return Sample(str(at), source, captions_in(said.get(at)), things, split)

    digest = content_hash(split, *(part for item in sorted(there.items()) for part in item))
    return Samples(f"coco {split}", map(str, order), read, digest)


_KINDS = ("captions", "instances")


class _Outlines:
    """The things of each picture, by pycocotools."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.index = package("pycocotools.coco", "coco").COCO()
        self.index.dataset = table
        with redirect_stdout(io.StringIO()):  # it reports "index created!"
            self.index.createIndex()

    def of(self, picture: Any) -> tuple[Thing, ...]:
        return tuple(self._thing(one) for one in self.index.imgToAnns.get(picture, ()))

    def _thing(self, row: dict[str, Any]) -> Thing:
        mask = torch.from_numpy(self.index.annToMask(row).astype(bool))
        x, y, width, height = (float(number) for number in row["bbox"])
        name = self.index.cats[row["category_id"]]["name"]
        return Thing(name, mask, (x, y, x + width, y + height))


def _table(data: bytes, name: str) -> dict[str, Any]:
    try:
        table = json.loads(data)
    except ValueError as error:
        raise DataError(f"{name!r} is not JSON: {error}.") from None
    missing = [key for key in ("images", "annotations") if key not in table]
    if not isinstance(table, dict) or missing:
        raise DataError(f"{name!r} is not written like COCO: it has no {' and no '.join(missing)}.")
    return table


def _has(folder: Path) -> str:
    if not folder.is_dir():
        return "and there is no such folder"
    names = sorted(path.name for path in (folder / "annotations").glob("*.json"))
    return f"and there is {', '.join(names) or 'nothing'}"
