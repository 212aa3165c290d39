"""Rasterize an SVG by resvg, without a browser, with the fonts of the system.

Where the system has none of the fonts that the SVG names, Pillow's own font is used (Latin only).
"""

from __future__ import annotations

import io
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image, ImageFont

from mmlens.values.errors import WriteError


def to_picture(svg: str, scale: float | int, *, system_fonts: bool = True) -> Image.Image:
    """The document as a picture of `scale` pixels per unit.

    Args:
        system_fonts: whether the fonts of this machine are used.
    """
    font, family = _pillows_font()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "font.ttf"  # resvg reads font files
        try:
            path.write_bytes(font)
        except OSError as error:
            raise WriteError(
                f"The font for a PNG cannot be written ({error.strerror}): make room in the folder"
                " for temporary files, or save the figure as SVG."
            ) from error
        pixels = resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=float(scale),
            font_files=[str(path)],
            serif_family=family,  # the fallback of resvg
            skip_system_fonts=not system_fonts,
        )
    return Image.open(io.BytesIO(bytes(pixels))).convert("RGB")


@lru_cache(1)
def _pillows_font() -> tuple[bytes, str]:
    font: Any = ImageFont.load_default(12)
    family, _ = font.getname()
    return font.path.getvalue(), family
