"""The site of a microscope: one page, and beside it the units in shards and the pictures.

    index.html                     the list of all units; index.html#vision.L3.123 is one unit
    units/vision.L3/list-0000.js   what the list shows of the units of a layer
    units/vision.L3/units-0000.js  what their pages show
    pictures/000/000017.jpg        the pictures that excite some unit, by their number in the data
    drawn/vision.L3/123.jpg        feature visualisations, where they were made

The address of a unit is its name behind `index.html#`. It does not depend on how units are divided
into files, on the data or on which layers are shown, so a link to a unit stays good when the site
is made again; and there is one page to keep small instead of fifty thousand.

Texts are never markup (`mmlens.view.style.modules`), and the page may load nothing but what lies
beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mmlens.values.errors import writing
from mmlens.values.whole_files import printable, replacing, write_whole
from mmlens.view.microscope_page.shards import write_shards
from mmlens.view.microscope_page.shown_unit import UnitCard
from mmlens.view.style.html import filled, locked
from mmlens.view.style.modules import (
    about_rows,
    data_script,
    dumped,
    script,
    shared_style,
    static_of,
)
from mmlens.view.style.paint import Box, whole

SIDE = 160
"""Pixels of the longer side of a picture of the site."""
_HERE, _EXPLORER = "mmlens.view.microscope_page", "mmlens.view.explorer_page"
MODULES = ((_EXPLORER, "base"), *((_HERE, name) for name in (
    "store", "maps", "charts", "list", "unit", "route")))  # fmt: skip


@dataclass(frozen=True)
class LayerFiles:
    """A layer of the site, as its files were written.

    Attributes:
        key: `vision.L3`.
        layer: its number.
        site: where its units were read.
        units: how many.
        grid: (rows, cols) of the maps that are kept; None where there are none.
        each, listed: units per shard, of the units and of the list.
        files: hashes of the shards.
    """

    key: str
    layer: int
    site: str
    units: int
    grid: tuple[int, int] | None
    each: int
    listed: int
    files: Mapping[str, str]


def write_layer(
    folder: Path,
    key: str,
    layer: int,
    site: str,
    grid: tuple[int, int] | None,
    cards: Sequence[UnitCard],
    stamp: str,
) -> LayerFiles:
    """Write the shards of a layer, and remove those of an earlier build that have no place now.

    Raises:
        AddressError: one unit alone does not fit into a file. WriteError: the system refuses.
    """
    pages = [dumped(card.json()) for card in cards]
    each, files = write_shards(folder, key, "units", pages, stamp)
    rows = [dumped(card.row()) for card in cards]
    listed, more = write_shards(folder, key, "list", rows, stamp)
    files |= more
    for old in (folder / "units" / key).glob("*.js"):
        if old.relative_to(folder).as_posix() not in files:
            with writing(old):
                old.unlink()
    return LayerFiles(key, layer, site, len(cards), grid, each, listed, files)


def are_whole(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether all of these files are there as they were written."""
    for name, digest in files.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError:
            return False
        if found != digest:
            return False
    return True


def picture_path(number: int) -> str:
    """The place of a picture on the site, by its number in the data."""
    return f"pictures/{number // 1000:03d}/{number:06d}.jpg"


def write_picture(path: Path, picture: Image.Image, box: Box) -> None:
    """Write the part of a picture that the encoder reads, unless it is there already.

    Args:
        box: (x0, y0, x1, y1) in pixels of the picture; beyond it there is grey.
    """
    if path.is_file():
        return
    left, top, right, bottom = whole(box, 1)
    part = Image.new("RGB", (right - left, bottom - top), (128, 128, 128))
    part.paste(picture.convert("RGB"), (-left, -top))
    part.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        part.save(new, "jpeg", quality=88, subsampling=0, optimize=True)


def write_page(
    folder: Path,
    *,
    title: str,
    lead: str,
    layers: Sequence[LayerFiles],
    labels: Sequence[str],
    facts: Mapping[str, Any],
    about: Mapping[str, Any],
    stamp: str,
) -> Path:
    """Write `index.html`, last, so that it never names a shard that is not there.

    Args:
        lead: a sentence under the title.
        labels: names of the labels, by number.
        facts: numbers that the page needs in its sentences.
        about: provenance.
    """
    rows = [
        {"key": one.key, "layer": one.layer, "site": one.site, "units": one.units,
         "grid": one.grid, "each": one.each, "listed": one.listed}
        for one in layers
    ]  # fmt: skip
    data = {"layers": rows, "labels": list(labels), "facts": dict(facts), "of": stamp}
    parts = {
        "title": escape(printable(title)), "lead": escape(lead), "about": about_rows(about),
        "css": f"{shared_style()}\n{static_of(_HERE, 'style.css')}",
        "data": data_script("data", data), "js": script(MODULES),
    }  # fmt: skip
    page = locked(filled(static_of(_HERE, "page.html"), parts), beside=True)
    return write_whole(folder / "index.html", page)
