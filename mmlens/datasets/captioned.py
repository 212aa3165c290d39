"""Any folder of pictures, and any Hugging Face data set, as `Samples`.

What `mmlens train` reads as `CaptionPairs` is read here by the same code; only that pictures may
lack a caption, because a question about a model does not need one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlens.datasets.caption_pairs import DataError, Listed
from mmlens.datasets.folders import absent, folder_at, read_rows
from mmlens.datasets.sample import Sample, Samples, content_hash
from mmlens.datasets.sources import open_pairs
from mmlens.values.whole_files import printable


def images(folder: str | Path) -> Samples:
    """The pictures of a folder, with captions where there are.

    Captions stand in a text beside each picture (a line each) or in a table, `captions.json` among
    others (`mmlens.datasets.folders` lists the layouts); a table also says which pictures count.
    The id is the path within the folder. The hash covers ids, captions and the sizes of the files,
    so a copy of the folder has the same one.

    Raises:
        DataError: no such folder, no pictures in it, or a table names one that is not there.
    """
    folder = folder_at(folder)
    rows = list(read_rows(folder))
    if not rows:
        raise DataError(
            f"{str(folder)!r} holds no pictures: it should hold .jpg, .png, .webp, .tif or another"
            " kind that Pillow opens."
        )
    ids, sizes = [], []
    for path, _, where in rows:
        inside = path.is_relative_to(folder)
        ids.append(printable(path.relative_to(folder).as_posix() if inside else path.as_posix()))
        if why := absent(path, folder, where):
            raise DataError(f"{ids[-1]!r}{why}")
        sizes.append(path.stat().st_size)
    facts = zip(ids, (captions for _, captions, _ in rows), sizes, strict=True)
    digest = content_hash(*(json.dumps(fact, ensure_ascii=False) for fact in facts))

    def read(place: int) -> Sample:
        return Sample(ids[place], rows[place][0], rows[place][1])

    return Samples(f"folder {folder.name!r}", ids, read, digest)


def hugging_face(
    name_or_dataset: Any,
    *,
    split: str = "train",
    image: str = "image",
    caption: str | None = "caption",
) -> Samples:
    """A data set of the `datasets` library: `pip install 'mmlens[train]'`.

    The id is the number of the row; the hash is the library's own fingerprint.

    Args:
        name_or_dataset: "nlphuji/flickr30k" on the hub, a folder that `save_to_disk` wrote, or a
            `datasets.Dataset`.
        split: which part of one that has several.
        image, caption: the columns; a cell of captions may be a list, and `caption=None` is none.

    Raises:
        DataError: no such column or split, or a data set that is streamed and so has no length.
        CapabilityError: `datasets` is not installed.
    """
    source = name_or_dataset
    if isinstance(source, str) and not Path(source).exists() and not source.startswith("hf:"):
        source = f"hf:{source}"
    pairs = open_pairs(source, image=image, caption=caption, split=split)
    if not isinstance(pairs, Listed):
        raise DataError(
            f"{pairs.name} comes one picture after the other and has no length: save it as a folder"
            " first, or load the data set with streaming=False."
        )

    def read(place: int) -> Sample:
        pair = pairs[place]
        return Sample(ids[place], pair.source, pair.captions, (), split)

    ids = [f"row {place}" for place in range(len(pairs))]
    label = name_or_dataset if isinstance(name_or_dataset, str) else "a datasets.Dataset"
    digest = content_hash(pairs.fingerprint, split, image, str(caption), str(len(ids)))
    return Samples(f"{Path(label).name} {split}", ids, read, digest)
