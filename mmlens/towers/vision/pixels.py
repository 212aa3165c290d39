"""From a picture to the pixels an encoder was trained on, and from a patch back to the picture.

Every public preprocessing recipe is the same four steps: resize, centre crop (or pad), scale to
[0, 1], subtract the mean and divide by the standard deviation. `Pixels` holds the numbers of one
recipe, so the steps are deterministic, need only PIL and torch, can be saved as JSON, and can be
inverted: `box` gives the rectangle of the *original* picture that a patch covers, crop included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmlens.values.errors import CheckpointError, PictureError
from mmlens.values.pictures import MAX_PIXELS

if TYPE_CHECKING:
    Pair: TypeAlias = tuple[int, int]
    Numbers: TypeAlias = tuple[float, ...]
    Colour: TypeAlias = tuple[int, int, int]
else:  # read from files, so `Pixels` itself checks them
    Pair = Numbers = Colour = Any

HALF = (0.5, 0.5, 0.5)

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
FILTER_NAMES = {int(value): name for name, value in FILTERS.items()}


@dataclass(frozen=True)
class Pixels:
    """The numbers of one preprocessing recipe.

    Args:
        size: (rows, columns) of the tensor the encoder receives.
        resize: "squash" to `scale` exactly; "shortest" or "longest" edge to `scale`, aspect kept;
            "none". A centre crop to `size` follows (and a pad where the picture is smaller).
        scale: (rows, columns) to resize to; None means `size`.
        interpolation: a PIL filter by name.
        mean, std: per channel, after scaling by `rescale`.
        rounding: how half a pixel of crop is rounded ("floor": transformers, "even": torchvision).
        fill: colour of the padding, 0 to 255.
        channels: the order in which the encoder reads them; `mean` and `std` are in that order.

    Raises:
        CheckpointError: a number that no recipe can have, such as a standard deviation of 0.
    """

    size: Pair
    resize: str = "squash"
    scale: Pair | None = None
    interpolation: str = "bilinear"
    mean: Numbers = HALF
    std: Numbers = HALF
    rescale: float = 1 / 255
    rounding: str = "floor"
    fill: Colour = (0, 0, 0)
    channels: str = "RGB"

    def __post_init__(self) -> None:
        for name, known in (
            ("interpolation", tuple(FILTERS)),
            ("resize", ("squash", "shortest", "longest", "none")),
            ("rounding", ("floor", "even")),
            ("channels", ("RGB", "BGR")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise CheckpointError(f"{name.title()} {value!r} is none of {', '.join(known)}.")
        object.__setattr__(self, "size", pair(self.size))
        object.__setattr__(self, "scale", self.scale and pair(self.scale))
        _check("mean", self.mean, "finite numbers", math.isfinite)
        _check("std", self.std, "numbers above 0", lambda v: math.isfinite(v) and v > 0)
        _check("fill", self.fill, "colours from 0 to 255", lambda v: 0 <= v <= 255)
        _check(
            "rescale", [self.rescale] * 3, "numbers above 0", lambda v: math.isfinite(v) and v > 0
        )
        if self.scale == self.size:
            object.__setattr__(self, "scale", None)

    @property
    def crops(self) -> bool:
        """Whether part of a picture can be outside of the encoder's input."""
        return self.resize != "squash" or self._scale != self.size

    @property
    def _scale(self) -> tuple[int, int]:
        return self.scale or self.size

    def window(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(width, height) after resizing, and (left, top) of the crop in it; negative means pad."""
        rows, cols = self._scale
        if self.resize == "squash":
            new_w, new_h = cols, rows
        elif self.resize == "shortest" and rows == cols:  # truncates, as all libraries do
            short, long = sorted((width, height))
            long = int(rows * long / short)
            new_w, new_h = (rows, long) if width <= height else (long, rows)
        elif self.resize in ("shortest", "longest"):
            pick = min if self.resize == "shortest" else max
            ratio = pick(height / rows, width / cols)
            new_w, new_h = round(width / ratio), round(height / ratio)
        else:
            new_w, new_h = width, height
        return new_w, new_h, self._half(new_w - self.size[1]), self._half(new_h - self.size[0])

    def _half(self, spare: int) -> int:
        """Where the crop begins; padding (spare < 0) has its odd pixel at the end."""
        if spare < 0:
            return -(-spare // 2)
        return round(spare / 2) if self.rounding == "even" else spare // 2

    def __call__(self, picture: object) -> Float[Tensor, "3 h w"]:
        """The tensor for one picture; the same picture always gives the same tensor."""
        if not isinstance(picture, Image.Image):
            raise PictureError(
                f"A picture has to be a PIL.Image.Image, not a {type(picture).__name__}; "
                "write Image.open(path) or Image.fromarray(array)."
            )
        image = picture.convert("RGB")
        new_w, new_h, left, top = self.window(*image.size)
        if not 0 < new_w * new_h <= MAX_PIXELS:
            raise PictureError(
                f"A picture of {image.width} x {image.height} would be resized to {new_w} x {new_h}"
                f" for this encoder, and mmlens makes 1 to {MAX_PIXELS} pixels: crop it first."
            )
        if (new_w, new_h) != image.size:
            image = image.resize((new_w, new_h), FILTERS[self.interpolation])
        rows, cols = self.size
        if (left, top, new_w, new_h) != (0, 0, cols, rows):
            canvas = Image.new("RGB", (cols, rows), self.fill)
            canvas.paste(image, (-left, -top))
            image = canvas
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() * self.rescale
        values = values.flip(0) if self.channels == "BGR" else values
        mean, std = (
            torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std)
        )
        return ((values - mean) / std).contiguous()

    def box(
        self, row: int, col: int, grid: tuple[int, int], width: int, height: int
    ) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a cell of `grid`, in pixels of a picture of (width, height)."""
        new_w, new_h, left, top = self.window(width, height)
        cell_h, cell_w = self.size[0] / grid[0], self.size[1] / grid[1]

        def back(value: float, offset: int, new: int, old: int) -> float:
            return min(max((value + offset) * old / new, 0.0), float(old))

        return (
            back(col * cell_w, left, new_w, width),
            back(row * cell_h, top, new_h, height),
            back((col + 1) * cell_w, left, new_w, width),
            back((row + 1) * cell_h, top, new_h, height),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what equals the default is left out, `size` is written as `image_size`."""
        plain = {f.name: f.default for f in fields(self)}
        keep = ("size", "mean", "std", "interpolation")
        out = {k: v for k, v in asdict(self).items() if k in keep or v != plain[k]}
        size = out.pop("size")
        out = {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}
        return {"image_size": size[0] if size[0] == size[1] else list(size), **out}

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> Pixels:
        """The inverse of `to_dict`; keys that are not about pixels are ignored."""
        names = {f.name for f in fields(cls)}
        known: dict[str, Any] = {}
        known |= {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items() if k in names}
        known["size"] = pair(spec.get("image_size", known.get("size", 224)))
        return cls(**known)


def pair(size: Any) -> tuple[int, int]:
    """(rows, columns) of a size: one number for a square, two, or {"height": ..., "width": ...}.

    Raises:
        CheckpointError: it is none of these, or not above 0.
    """
    given = size
    if isinstance(size, Mapping) and set(size) >= {"height", "width"}:
        size = (size["height"], size["width"])
    size = (size, size) if isinstance(size, (int, float)) else size
    two = isinstance(size, (tuple, list)) and len(size) == 2 and all(map(_is_number, size))
    if not two or not all(v >= 1 and v == int(v) for v in size):
        raise CheckpointError(
            f"An image size of {given!r} is not one or two whole numbers above 0, such as 224 or"
            " [224, 224]."
        )
    return int(size[0]), int(size[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check(name: str, values: Any, kind: str, right: Callable[[Any], bool]) -> None:
    """Refuse anything but three numbers of this kind."""
    several = isinstance(values, (tuple, list)) and len(values) == 3
    if not several or not all(_is_number(v) and right(v) for v in values):
        raise CheckpointError(f"{name!r} of a picture's recipe is {values!r}, not three {kind}.")
