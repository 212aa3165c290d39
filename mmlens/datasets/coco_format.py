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

from mmlens.datasets.caption_pairs import DataError, captions_in
from mmlens.datasets.exif_orientation import stored, turned_box, turned_mask
from mmlens.datasets.folders import folder_at
from mmlens.datasets.sample import Sample, Samples, Thing, content_hash
from mmlens.values.optional_packages import package


def coco(folder: str | Path, split: str = "val2017") -> Samples:
    """Pictures with captions and things, in the order of their COCO ids, which are the sample ids.

    Captions are those of `captions_SPLIT.json`; things those of `instances_SPLIT.json`, crowds
    included, each with mask and box, turned with the picture where its EXIF note turns it. One of
    the two files may be missing. The hash covers the two files, not the pictures.

    Raises:
        DataError: neither file is there, or one cannot be read.
        CapabilityError: pycocotools is not installed and there are outlines to read.
    """
    folder = folder_at(folder)
    files = {kind: folder / "annotations" / f"{kind}_{split}.json" for kind in _KINDS}
    there = {kind: path.read_bytes() for kind, path in files.items() if path.is_file()}
    if not there:
        raise DataError(
            f"{str(folder)!r} holds no COCO annotations of {split!r}: there should be"
            f" annotations/captions_{split}.json and annotations/instances_{split}.json,"
            f" {_has(folder)}."
        )
    tables = {kind: _table(data, files[kind].name) for kind, data in there.items()}
    said: dict[Any, list[str]] = defaultdict(list)
    try:
        pictures = {row["id"]: row["file_name"] for one in tables.values() for row in one["images"]}
        for row in tables.get("captions", {}).get("annotations", ()):
            said[row["image_id"]].append(row["caption"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"The annotations of {split!r} are not written like COCO: {error}."
        ) from None
    outlines = _Outlines(tables["instances"]) if "instances" in tables else None
    order = sorted(pictures)

    def read(place: int) -> Sample:
        at = order[place]
        source = folder / split / Path(pictures[at]).name
        things = outlines.of(at, source) if outlines is not None else ()
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

    def of(self, picture: Any, source: Path) -> tuple[Thing, ...]:
        """The things of a picture, as they lie in it when it is upright."""
        rows = self.index.imgToAnns.get(picture, ())
        turn = self._turn(picture, source) if rows else 1
        return tuple(self._thing(one, turn) for one in rows)

    def _turn(self, picture: Any, source: Path) -> int:
        """The orientation that annotations and stored pixels share; 1 where nothing is turned."""
        found, row = stored(source), self.index.imgs[picture]
        told = row.get("width"), row.get("height")
        if None in told:
            raise DataError(f"The picture {picture} has no width and height in its annotations.")
        if found is None:
            return 1
        size, turn = found
        upright = size[::-1] if turn >= 5 else size
        if told not in (size, upright):
            raise DataError(
                f"{source.name!r} has {size[0]} x {size[1]} pixels, and its annotations are for"
                f" {told[0]} x {told[1]}: it is another picture, or one that was resized."
            )
        return turn if told == size else 1

    def _thing(self, row: dict[str, Any], turn: int) -> Thing:
        try:
            x, y, width, height = (float(number) for number in row["bbox"])
            name = str(self.index.cats[row["category_id"]]["name"])
            drawn = self.index.annToMask(row) if row.get("segmentation") else None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"The annotation {row.get('id')} of picture {row['image_id']} is not written like"
                f" COCO ({type(error).__name__}: {error})."
            ) from error
        picture = self.index.imgs[row["image_id"]]
        box = turned_box((x, y, x + width, y + height), turn, picture["width"], picture["height"])
        if drawn is None:
            return Thing(name, None, box)
        return Thing(name, turned_mask(torch.from_numpy(drawn.astype(bool)), turn), box)


def _table(data: bytes, name: str) -> dict[str, Any]:
    try:
        table = json.loads(data)
    except ValueError as error:
        raise DataError(f"{name!r} is not JSON: {error}.") from None
    keys = ("images", "annotations")
    missing = [key for key in keys if not isinstance(table, dict) or key not in table]
    if missing:
        raise DataError(f"{name!r} is not written like COCO: it has no {' and no '.join(missing)}.")
    return table


def _has(folder: Path) -> str:
    names = sorted(path.name for path in (folder / "annotations").glob("*.json"))
    return f"and there is {', '.join(names) or 'nothing'}"
