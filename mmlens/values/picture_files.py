"""Suffixes of picture files: one list for the whole project.

It has what the installed Pillow opens, with plugins that are registered at that time, and common
picture formats that Pillow does not open, so that such files are reported and not skipped.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePath

from PIL import Image

_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF", "IPTC", "FTEX", "BLP"}
"""Formats that Pillow registers but cannot decode, or that are drawings, films or tables."""
_ELSEWHERE = """
.arw .avif .cr2 .cr3 .dng .eps .exr .hdr .heic .heif .j2k .jp2 .jxl .nef .orf .psd .raf .rw2 .svg
.svgz .tif .tiff .webp .xcf
"""
"""Pictures that Pillow opens only with optional libraries or plugins, or not at all."""


def readable() -> frozenset[str]:
    """The suffixes, in lower case with their dot, of pictures that the installed Pillow opens."""
    Image.init()
    return _opened(tuple(Image.EXTENSION.items()), frozenset(Image.OPEN))


@lru_cache(maxsize=4)
def _opened(known: tuple[tuple[str, str], ...], opened: frozenset[str]) -> frozenset[str]:
    return frozenset(
        suffix for suffix, kind in known if kind in opened and kind not in _NO_PICTURES
    )


def pictures() -> frozenset[str]:
    """The suffixes of all pictures, including those that the installed Pillow does not open."""
    return readable() | {*_ELSEWHERE.split()}


def suffix(name: str | PurePath) -> str:
    """The suffix of a file's name in lower case, ".jpg"."""
    return PurePath(name).suffix.lower()
