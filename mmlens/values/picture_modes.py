"""From the pixels that Pillow decodes, in any mode, to RGB at 8 bits in the sRGB space.

depth            grey of more than 8 bits is scaled by the white of its file; Pillow would clip it
black and white  a TIFF whose zero is white is inverted where Pillow does not do it
colour profile   an embedded ICC profile is applied, since encoders are trained on sRGB
transparency     is composed onto white
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mmlens.values.errors import PictureError

SPARE = 1 / 8
"""By what share of its range a picture of floats may overshoot: resizing does that at edges."""
_BITS, _FORMAT, _ZERO = 258, 339, 262
"""Tags of a TIFF: bits per sample, how they are read (1 unsigned, 2 signed, 3 float), what 0 is."""


@dataclass(frozen=True)
class BitDepth:
    """How the pixel values of a file are interpreted.

    Attributes:
        top: the number that is white, or None where it is inferred from the numbers.
        signed: whether numbers may be negative, which are refused.
        inverted: whether 0 is white.
        key: the grey, or the colour, that is transparent.
    """

    top: int | None = None
    signed: bool = False
    inverted: bool = False
    key: Any = None


def depth_of(picture: Image.Image) -> BitDepth:
    """Read from the header of an opened picture, before its pixels are loaded."""
    key = picture.info.get("transparency")
    tags = getattr(picture, "tag_v2", None)
    if tags is not None and picture.format in ("TIFF", None):
        bits, kind = _first(tags.get(_BITS, 1)), _first(tags.get(_FORMAT, 1))
        grey = picture.mode not in ("1", "L", "P", "RGB", "RGBA")  # in these Pillow inverts it
        inverted = grey and _first(tags.get(_ZERO, 1)) == 0
        top = None if kind == 3 or bits > 16 else 2 ** (bits - (kind == 2)) - 1
        return BitDepth(top, kind == 2, inverted, key)
    if isinstance(key, tuple) and any(
        "16B" in str(tile[3]) for tile in getattr(picture, "tile", ())
    ):
        key = tuple(part >> 8 for part in key)  # as Pillow reads the pixels
    whole = picture.mode.startswith("I;16") or (
        picture.mode == "I" and picture.format in ("PNG", "PPM", "JPEG2000")
    )
    return BitDepth(65535 if whole else None, key=key)


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def to_rgb(picture: Image.Image, name: str, depth: BitDepth) -> Image.Image:
    """A loaded, upright picture as a new one: RGB, 8 bits, sRGB, nothing transparent."""
    alpha = None
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if isinstance(depth.key, int):
            alpha = Image.fromarray(np.uint8(255) * (values != depth.key).astype(np.uint8))
        profile = picture.info.get("icc_profile")
        picture = Image.fromarray(_scaled(values, name, picture.mode, depth))
        picture.info["icc_profile"] = profile
    elif depth.signed and picture.mode == "L":
        picture = Image.fromarray(_scaled(np.asarray(picture).view(np.int8), name, "L", depth))
    elif picture.has_transparency_data:
        if depth.key is not None and picture.mode == "RGB":
            picture = picture.copy()
            picture.info["transparency"] = depth.key
        alpha = picture.convert("RGBA").getchannel("A")
    out = _in_srgb(picture, name)
    if alpha is not None:
        paper = Image.new("RGBA", out.size, "white")
        out.putalpha(alpha)
        out = Image.alpha_composite(paper, out).convert("RGB")
    for told in ("icc_profile", "transparency"):  # they no longer apply
        out.info.pop(told, None)
    return out


def _scaled(values: np.ndarray, name: str, mode: str, depth: BitDepth) -> np.ndarray:
    if depth.signed and values.min() < 0:
        raise PictureError(
            f"{name} holds negative numbers (down to {values.min()}), and nothing says which of"
            " them is black: save it with unsigned numbers."
        )
    top = depth.top
    if top is None and mode != "F":  # 32 bits wide, but mostly a 16-bit picture
        top = 65535 if values.max() > 255 else 255
    scaled = to_bytes(values, name, top)
    return 255 - scaled if depth.inverted else scaled


def to_bytes(values: np.ndarray, name: str, top: int | None) -> np.ndarray:
    """Values as `uint8`; `top` is their white, or None: of integers 255, of floats 1 or 255.

    Floats are of 0..1 if none lies above 1 by more than an overshoot, and of 0..255 if they are
    whole or reach so far that 0..1 is impossible; values between are refused. Overshoots
    are clipped.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if not np.isfinite(values).all():
        raise PictureError(
            f"{name} contains NaN or infinite values: clean it first, e.g. numpy.nan_to_num(array)."
        )
    low, high = float(values.min()), float(values.max())
    floats = values.dtype.kind == "f"
    if top is None:
        top = 255
        if floats and high <= 1 + SPARE and not (high > 1 and _whole(values)):
            top = 1
        elif floats and high < 16 and not _whole(values):
            raise PictureError(
                f"{name} has values from {low:g} to {high:g}, which is neither 0..1 nor 0..255:"
                " scale them to one of these."
            )
    spare = SPARE * top if floats and (top == 1 or high >= 16) else 0
    if low < -spare or high > top + spare:
        raise PictureError(
            f"{name} has values from {low:g} to {high:g}: scale them to 0..1 (floats) or 0..255"
            " (integers); a normalised tensor needs its mean and deviation undone first."
        )
    scaled = np.rint(values.astype(np.float64) * (255 / top))
    return scaled.clip(0, 255).astype(np.uint8)


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


# Colour profiles ----------------------------------------------------------------------------------


_ROUNDING = 2  # grey levels by which lcms turns sRGB into its own sRGB


def _is_srgb(profile: Any) -> bool:
    """Whether a profile named sRGB leaves colours unchanged; another profile may have the name."""
    from PIL import ImageCms

    if not f"{ImageCms.getProfileDescription(profile)}".strip().startswith("sRGB"):
        return False
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    srgb = ImageCms.createProfile("sRGB")
    out: Any = ImageCms.profileToProfile(Image.fromarray(cube), profile, srgb, outputMode="RGB")
    return int(np.abs(np.asarray(out, int) - cube).max()) <= _ROUNDING


def _in_srgb(picture: Image.Image, name: str) -> Image.Image:
    """The colours as RGB of the sRGB space; without a profile sRGB is assumed."""
    data = picture.info.get("icc_profile")
    if not data:
        return picture.convert("RGB")
    try:
        from PIL import ImageCms

        profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if _is_srgb(profile):
            return picture.convert("RGB")
        space = str(profile.profile.xcolor_space).strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space, "RGB")
        if mode in ("CMYK", "LAB") and picture.mode != mode:
            raise ValueError(f"a profile of {space} on {picture.mode}")
        if mode == "L" and picture.mode not in ("1", "L", "LA", "La"):
            raise ValueError(f"a profile of grey on {picture.mode}")
        plain = picture.convert(mode)
        srgb = ImageCms.createProfile("sRGB")
        out: Any = ImageCms.profileToProfile(plain, profile, srgb, outputMode="RGB")
    except (ImportError, OSError, ValueError, TypeError) as error:  # PyCMSError is no subclass
        return _as_srgb(picture, name, error)
    except Exception as error:
        if type(error).__name__ != "PyCMSError":
            raise
        return _as_srgb(picture, name, error)
    return out


def _as_srgb(picture: Image.Image, name: str, error: Exception) -> Image.Image:
    warnings.warn(
        f"The colour profile in {name} cannot be applied ({error}): its colours are taken as sRGB.",
        stacklevel=6,
    )
    return picture.convert("RGB")
