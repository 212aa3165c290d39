"""A scene of the pictos world and everything true about it: alone, or many of them as tensors."""

from dataclasses import dataclass
from functools import cached_property

from PIL import Image
from torch import Tensor

from mmlens.pictos.scene_captions import canonical, paraphrases


@dataclass(frozen=True)
class SceneObject:
    """One pictured thing; `row` and `col` are its centre in pixels, `mask` its place in `masks`."""

    name: str
    style: str
    row: float
    col: float
    mask: int


@dataclass(frozen=True)
class Scene:
    """A picture and everything true about it. `caption` continues "A picture of"."""

    image: Image.Image
    caption: str
    captions: tuple[str, ...]
    objects: tuple[SceneObject, ...]
    masks: Tensor  # Bool[object, side, side]
    style: str
    ground: str
    seed: int


@dataclass(frozen=True)
class Scenes:
    """Many scenes as tensors: images Float[batch, 3, side, side] in [0, 1] and what they show."""

    images: Tensor
    masks: Tensor  # Bool[batch, 3, side, side]; False where there is no such thing
    concepts: Tensor  # Long[batch, 3]; -1 where there is no such thing
    centres: Tensor  # Float[batch, 3, (row, col)] in pixels
    names: list[tuple[str, ...]]
    styles: list[str]
    grounds: list[str]
    seeds: list[int]

    @cached_property
    def captions(self) -> list[str]:
        """The canonical caption of each scene."""
        return [canonical(n, s) for n, s in zip(self.names, self.styles, strict=True)]

    def paraphrases(self, b: int) -> tuple[str, ...]:
        """Five whole-sentence captions of scene `b` of the batch."""
        return paraphrases(self.names[b], self.styles[b], self.grounds[b])

    def __len__(self) -> int:
        return len(self.names)
