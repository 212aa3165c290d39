"""Parse the specification of a data set, as the command line gives it.

pictos:held_out:200         so many scenes of the bundled world; a seed may follow
coco:FOLDER                 COCO's val2017; coco:FOLDER:train2017 is another split
hf:NAME                     a data set of the Hugging Face Hub; hf:NAME:SPLIT
FOLDER                      pictures, or what datasets' save_to_disk wrote
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from mmlens.datasets.bundled import pictos
from mmlens.datasets.caption_pairs import DataError
from mmlens.datasets.captioned import hugging_face, images
from mmlens.datasets.coco_format import coco
from mmlens.datasets.sample import Samples
from mmlens.values.arguments import shown

KINDS = ("pictos:held_out:200", "coco:FOLDER", "hf:NAME")


def dataset(source: Any) -> Samples:
    """A data set by what it is called; `Samples` and a `datasets.Dataset` are taken as they are.

    Raises:
        DataError: nothing is called so; the sentence says what can be written.
    """
    if isinstance(source, Samples):
        return source
    if type(source).__module__.split(".")[0] == "datasets":
        return hugging_face(source)
    if not isinstance(source, (str, PathLike)):
        raise DataError(f"{shown(source)} is no data set: write {', '.join(KINDS)} or a folder.")
    text, path = str(source), Path(str(source))
    kind, _, rest = text.partition(":")
    if kind == "pictos":
        return _pictos(text, rest)
    if kind == "coco":
        place, split = _last(rest, "val2017")
        return coco(place, split)
    if kind == "hf":
        name, split = _last(rest, "train")
        return hugging_face(f"hf:{name}", split=split)
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return hugging_face(text)
    if path.is_dir() or text.startswith("~"):
        return images(path)
    if path.is_file():
        raise DataError(f"{text!r} is a file: give a folder of pictures, or {', '.join(KINDS)}.")
    raise DataError(
        f"{text!r} is neither a data set nor a folder: write {', '.join(KINDS)} or a folder of"
        " pictures."
    )


def _pictos(text: str, rest: str) -> Samples:
    parts = [part for part in rest.split(":") if part]
    if len(parts) > 3 or not all(part.isdecimal() for part in parts[1:]):
        raise DataError(
            f"{text!r} is no part of the bundled world: write pictos:SPLIT:NUMBER or"
            " pictos:SPLIT:NUMBER:SEED, as in pictos:held_out:200."
        )
    split, n, seed = (*parts, *("held_out", "200", "0")[len(parts) :])
    return pictos(split, int(n), int(seed))


def _last(rest: str, default: str) -> tuple[str, str]:
    """`FOLDER:SPLIT` in two; a colon inside the folder's own name stays there."""
    before, colon, after = rest.rpartition(":")
    if not colon or Path(rest).exists() or "/" in after or "\\" in after:
        return rest, default
    return before, after
