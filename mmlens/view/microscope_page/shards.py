"""Units in files of bounded size that a page without a server can read.

A browser lets a page that was opened from a disk read no other file as data, but it runs scripts
beside the page. So each shard is a script of one call of `take` with a name as
vision.L3/units/2 and JSON.

All shards of a layer but the last hold equally many units, the largest power of two with which
every file stays below `LIMIT`: from a unit's number follows its file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mmlens.values.errors import AddressError, writing
from mmlens.values.whole_files import write_whole

LIMIT = 200_000
"""Bytes of a shard at most; no file of the site but a picture has more than 300,000."""
MOST = 1024
"""Units in a shard at most."""


def split(texts: Sequence[str]) -> int:
    """How many of these texts go into one shard.

    Raises:
        AddressError: one alone is too large.
    """
    size = MOST
    while size:
        starts = range(0, len(texts), size)
        largest = max(sum(len(text) + 1 for text in texts[at : at + size]) for at in starts)
        if largest <= LIMIT:
            return size
        size //= 2
    raise AddressError(
        f"What is shown of one unit takes {max(map(len, texts))} bytes, and a file of the site has"
        f" at most {LIMIT}: show fewer top pictures of each unit."
    )


def write_shards(
    folder: Path, key: str, kind: str, texts: Sequence[str], stamp: str
) -> tuple[int, dict[str, str]]:
    """Write the shards of a layer; returns units per shard, and the hashes of the files.

    Args:
        folder: of the site.
        key: of the layer, `vision.L3`.
        kind: "units" or "list".
        texts: JSON of each unit.
        stamp: of the build, by which the page knows shards of another.
    """
    each, files = split(texts), {}
    with writing(folder):
        (folder / "units" / key).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(texts), each)):
        inside = ",".join(texts[start : start + each])
        body = f'{{"of":"{stamp}","start":{start},"rows":[{inside}]}}'
        script = f'microscope.take("{key}/{kind}/{number}",{body});\n'
        name = f"units/{key}/{kind}-{number:04d}.js"
        write_whole(folder / name, script)
        files[name] = hashlib.sha256(script.encode()).hexdigest()
    return each, files
