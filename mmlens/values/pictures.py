"""Read any picture in the form that models need: RGB, 8 bits, sRGB, upright, loaded.

Pillow reads most files, but it clips 16-bit grey to white, drops transparency onto black, ignores
the rotation of a phone's photo and raises errors that do not name the file. Here the depth is
scaled, colour profiles are applied and transparent pixels composed onto white (`picture_modes`),
the EXIF rotation is applied, and an unreadable file raises one sentence that names it and the
remedy. Sizes are checked from the header, before decoding.
"""

from __future__ import annotations

import io
import re
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmlens.values.errors import PictureError, nearest
from mmlens.values.picture_modes import BitDepth, depth_of, to_bytes, to_rgb

MAX_PIXELS = 100_000_000
"""Larger pictures are refused: 100 megapixels are 300 MB once decoded."""
MAX_BYTES = 1 << 30
"""Larger files are refused: 100 megapixels at 16 bits are 600 MB without any compression."""

_ADDRESS = re.compile(r"(https?|ftp|file|s3|gs|hf):/")
"""How a web address begins, also where a Path made one slash of two."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif")


def open_picture(source: str | Path | Image.Image | np.ndarray | bytes) -> Image.Image:
    """Read a picture from any source -> a new RGB `PIL.Image`, 8 bits, upright, loaded.

    Args:
        source: a path, a PIL image (left untouched), a Prompt that has one picture, an encoded
            file as bytes, or an array `[row, column]` or `[row, column, channel]` with 1, 3 or 4
            channels; floats are read as 0..1 when none is above 1 (but for an overshoot, which is
            clipped), else as 0..255; `uint16` as 0..65535.

    Raises:
        PictureError: there is no such file, it is no picture, it is damaged, too large or empty,
            or the array has other channels or values.
    """
    if isinstance(source, np.ndarray):
        return to_rgb(_from_array(source), _name_of(source), BitDepth())
    if isinstance(source, Image.Image):
        return _decode(source, _name_of(source))
    if isinstance(source, bytes):
        name = f"The picture of {len(source)} bytes"
        return _decode(_open_bytes(source, name), name)
    if isinstance(source, str | Path):
        name = repr(str(source))
        return _decode(_open_bytes(_read_file(source), name), name)
    if len(inside := getattr(source, "pictures", ())) == 1:  # of a Prompt
        return _decode(inside[0], _name_of(inside[0]))
    raise PictureError(
        f"A {type(source).__module__}.{type(source).__qualname__} is not a picture: give a path,"
        " a PIL image, bytes, or a numpy array [row, column, channel]"
        " (a torch tensor [channel, row, column]: tensor.permute(1, 2, 0).cpu().numpy())."
    )


def open_named(source: Any, name: str) -> Image.Image:
    """A picture of a data set, whose errors give its name there and not its path.

    Raises:
        PictureError: as of `open_picture`.
    """
    try:
        return open_picture(source)
    except PictureError as error:
        said = str(error)
        if isinstance(source, (str, Path)):  # errors may be saved, and paths depend on the machine
            said = said.replace(str(source), name)
        raise PictureError(said if name in said else f"{name!r}: {said}") from None


def _name_of(picture: Image.Image | np.ndarray) -> str:
    """A picture's name in error messages: its file where it has one, otherwise its size."""
    if isinstance(picture, np.ndarray):
        return f"The array of shape {picture.shape}"
    filename = getattr(picture, "filename", "")
    return repr(str(filename)) if filename else f"The PIL image of size {picture.size}"


def _read_file(source: str | Path) -> bytes:
    """The bytes of a file; raises a PictureError where it cannot be read."""
    name = repr(str(source))
    if "://" in str(source) or _ADDRESS.match(str(source)):
        raise PictureError(f"{name} is an address: download it first, then give the file's path.")
    path = Path(source)
    try:
        path = path.expanduser()
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            _check_bytes(status.st_size, name)
            return path.read_bytes()
        if not stat.S_ISDIR(status.st_mode):  # reading it may never end
            raise OSError("it is a device or a pipe, not a file")
        raise IsADirectoryError
    except RuntimeError:  # no such user
        home = repr(path.parts[0])
        raise PictureError(f"There is no folder {home}, so no picture {name}.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, name, error) from None


def _unreadable(path: Path, name: str, error: Exception) -> PictureError:
    """Why a path gives no bytes: it is a folder, it does not exist, or the system refuses it."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return PictureError(
            f"{name} is a link to {str(path.readlink())!r}, which is not there: mend the link, or"
            " give the path of the file."
        )
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return PictureError(
            f"There is no folder {str(path.parent)!r}, so no picture {name}:"
            f" the working directory is {_here()}."
        )
    if isinstance(error, FileNotFoundError):
        names = _files_in(path.parent)
        near = f"in its folder: {nearest(path.name, names)}" if names else "its folder is empty"
        return PictureError(f"There is no file {name}; {near}{'' if near.endswith('?') else '.'}")
    if isinstance(error, IsADirectoryError):
        names = ", ".join(map(repr, _files_in(path)[:3])) or "no files"
        return PictureError(f"{name} is a folder: give the path of one picture; it holds {names}.")
    reason = getattr(error, "strerror", None) or error
    return PictureError(f"{name} cannot be read ({reason}): check the path and its rights.")


def _files_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError:  # a folder without the right to list it
        return []


def _here() -> str:
    try:
        return repr(str(Path.cwd()))
    except OSError:
        return "deleted"


def _open_bytes(data: bytes, name: str) -> Image.Image:
    """Read the header of a file's bytes; each of Pillow's errors becomes one sentence."""
    if not data:
        raise PictureError(f"{name} is empty (0 bytes): copy or download it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is below
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except UnidentifiedImageError:
        raise _not_a_picture(data, name) from None
    except Exception as error:  # plugins raise any exception for a damaged header
        raise _damaged(name, error) from None


def _decode(picture: Image.Image, name: str) -> Image.Image:
    """Load the pixels of an opened picture, turn it upright and make it RGB."""
    _check_size(picture.size, name)
    depth = depth_of(picture)
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        frame, frames = picture.tell() + 1, getattr(picture, "n_frames", 1)
    except Exception as error:
        raise _damaged(name, error) from None
    if frames > 1 and picture.format != "MPO":  # MPO: a phone's photo with its preview
        warnings.warn(f"{name} is animated: frame {frame} of {frames} is read.", stacklevel=3)
    return to_rgb(upright, name, depth)


def _from_array(array: np.ndarray) -> Image.Image:
    """An array `[row, column(, channel)]` as a PIL image of 8 bits."""
    name = _name_of(array)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim == 3 and channels not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        raise PictureError(
            f"{name} looks channels-first: write array.transpose(1, 2, 0) for"
            " [row, column, channel]."
        )
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise PictureError(
            f"{name} is not a picture: give [row, column] or [row, column, channel]"
            " with 1, 3 or 4 channels (for a batch: one picture at a time)."
        )
    _check_size((array.shape[1], array.shape[0]), name)
    if array.dtype.kind not in "biuf":
        raise PictureError(
            f"{name} holds {array.dtype} values: give uint8 (0..255) or floats (0..1)."
        )
    pixels = to_bytes(array, name, 65535 if array.dtype == np.uint16 else None)
    return Image.fromarray(pixels[..., 0] if array.ndim == 3 and channels == 1 else pixels)


def _check_size(size: tuple[int, int], name: str) -> None:
    """Refuse pictures without pixels and pictures too large to decode; `size` is width, height."""
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(
            f"{name} is {width} x {height} pixels, so it is empty:"
            " give a picture of at least 1 x 1."
        )
    if width * height > MAX_PIXELS:
        raise _too_large(name, f" ({width} x {height})")


def _check_bytes(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise PictureError(
            f"{name} has {size / 1e9:.1f} GB, more than any picture that would be decoded: give a"
            f" file of at most {MAX_BYTES / 1e9:.1f} GB."
        )


def _too_large(name: str, size: str = "") -> PictureError:
    return PictureError(
        f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels{size} and was not decoded:"
        " resize it first (the models see a few hundred pixels a side)."
    )


def _damaged(name: str, error: Exception) -> PictureError:
    return PictureError(
        f"{name} is damaged or cut short ({error}): copy or download it again,"
        " or re-save it with a picture editor."
    )


def _not_a_picture(data: bytes, name: str) -> PictureError:
    """The error for a file that Pillow does not know, by its first bytes."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start and start.startswith(b"<"):
        return PictureError(
            f"{name} is an SVG drawing, not pixels: export it as PNG, then give that file."
        )
    if data[:2] == b"\xff\n" or data[4:8] == b"JXL ":
        return PictureError(
            f"{name} is a JPEG XL picture, which this Pillow does not read: save it as JPEG or PNG"
            " (or install pillow-jxl-plugin and import pillow_jxl)."
        )
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return PictureError(
            f"{name} is a HEIC or AVIF picture, which this Pillow does not read: save it as JPEG or"
            " PNG (or install pillow-heif and call pillow_heif.register_heif_opener())."
        )
    return PictureError(
        f"{name} is not a picture that Pillow knows (its first bytes are {data[:8]!r}):"
        " give a PNG, JPEG, WebP, GIF, BMP or TIFF."
    )
