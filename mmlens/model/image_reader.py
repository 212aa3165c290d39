"""What a picture becomes in a prompt: crops for the encoder, labels, and their vectors.

`ImageReader` is the default of a bridge: the encoder reads the whole picture once, and every patch
is a position. A family whose models cut pictures into tiles, put newlines between rows or read them
through queries defines its own reader. A reader with `crosses` makes pictures keys of
cross-attention layers instead of positions: then its labels are those of the keys, and a prompt has
only the positions of its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model.size_groups import asked, encoding
from mmlens.towers.projection import keeps_positions
from mmlens.values.errors import PromptError
from mmlens.values.labels import Label, Patch

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.values.prompt import Prompt
    from mmlens.values.sites import Site


class ImageReader:
    """One crop, the whole picture, and a position for every patch, in reading order.

    Attributes:
        crosses: whether pictures are keys of cross-attention instead of positions.
        one_grid: whether every picture is one grid of positions, as pages and maps draw it.
        has_others: whether keys of cross-attention stand for other things than patches as well.
        placed: whether its positions lie somewhere in the picture; those of queries do not.
        coded: whether its positions are words for codes of the picture, which pass no gradient.
    """

    crosses, one_grid, has_others = False, True, False
    placed, coded = True, False

    def beside(self, words: Any, prompts: Sequence[Prompt]) -> ImageReader:
        """The reader of the pictures of these prompts, where it reads their words as well.

        Args:
            words: the model's `PromptReader`.
        """
        return self

    def grid(self, vision: Any, picture: Image.Image | None = None) -> tuple[int, int]:
        """Rows and columns of what the projection makes of one crop (of a picture)."""
        return vision.grid

    def size(self, vision: Any, picture: Image.Image) -> tuple[int, int]:
        """Rows and columns of the pixels of one crop of a picture."""
        return vision.image_size

    def rows(
        self, tower: Any, site: Site, layer: int | None, picture: Image.Image, image: int, crop: int
    ) -> tuple[Label, ...]:
        """The labels of a site of the encoder or the projection, in one crop of a picture."""
        return tuple(tower.labels(site, layer, image, crop))

    def project(
        self,
        projection: Any,
        features: Float[Tensor, "crop patch d_vision"],
        vision: Any,
        size: Sequence[int],
    ) -> Float[Tensor, "crop pos d_model"]:
        """The vectors that the projection makes of the features of crops of (rows, cols) pixels."""
        out, (rows, cols) = projection(features), self.grid(vision)
        keeps_positions(projection, out, rows * cols)
        return out

    def count(self, vision: Any, picture: Image.Image, of: int = 1) -> int:
        """How many crops the encoder reads of a picture, one `of` so many in its prompt."""
        return 1

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[Float[Tensor, "3 h w"]]:
        """The pixels of each crop."""
        return [vision.preprocess(picture)]

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        """The label of every position of a picture in the prompt, or of every key of it.

        Args:
            image: which picture of the prompt it is.
            of: how many pictures its prompt has; some models cut only a single one into tiles.
        """
        rows, cols = self.grid(vision)
        return tuple(Patch(row, col, image) for row in range(rows) for col in range(cols))

    def vectors(
        self,
        projected: Float[Tensor, "crop patch d_model"],
        labels: tuple[Label, ...],
        picture: Image.Image,
    ) -> Float[Tensor, "pos d_model"]:
        """The vector of every position (or key) of a picture, from its projected crops."""
        return projected.flatten(0, 1)

    def box(
        self, vision: Any, patch: Patch, width: int, height: int
    ) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a patch in pixels of a picture of (width, height)."""
        return vision.box(patch.row, patch.col, width, height, self.grid(vision))

    def patch_boxes(
        self, vision: Any, picture: Image.Image
    ) -> dict[Patch, tuple[float, float, float, float]]:
        """Every patch of a picture with its box; the encoder's, where no position lies in it."""
        every = self.labels(vision, picture, 0)
        patches = [label for label in every if isinstance(label, Patch)]
        return {patch: self.box(vision, patch, *picture.size) for patch in patches}


class CrossReader(ImageReader):
    """One crop, the whole picture, and a key of cross-attention for every patch."""

    crosses, one_grid = True, False


def labels_of(
    reader: ImageReader, vision: Any, pictures: Sequence[Image.Image]
) -> list[tuple[Label, ...]]:
    """The labels of each picture of one prompt."""
    n = len(pictures)
    return [reader.labels(vision, picture, image, n) for image, picture in enumerate(pictures)]


def seen(
    reader: ImageReader,
    vision: Any,
    prompts: Sequence[Sequence[Image.Image]],
    project: Any,
    watched: bool = False,
) -> list[torch.Tensor]:
    """Per picture the vectors Float[pos, d_model] of its positions, computed in one batch of crops.

    Args:
        prompts: the pictures of each prompt.
        project: from pixels Float[crop, 3, h, w] to vectors Float[crop, patch, d_model].
        watched: whether hooks see the pictures of the batch.

    Raises:
        PromptError: pictures that are read in different sizes, and `watched` by hooks that do not
            ask which they see.
    """
    read = [(picture, len(pictures)) for pictures in prompts for picture in pictures]
    crops = [reader.crops(vision, picture, of) for picture, of in read]
    every = [pixels for several in crops for pixels in several]
    sizes: dict[Any, list[int]] = {}
    for at, pixels in enumerate(every):
        sizes.setdefault(pixels.shape, []).append(at)
    if watched and len(sizes) > 1 and not asked():
        raise PromptError(_several_sizes(read, crops))
    found: dict[int, torch.Tensor] = {}
    for here in sizes.values():
        with encoding(here if len(sizes) > 1 else None):
            found |= zip(here, project(torch.stack([every[at] for at in here])), strict=True)
    mine = iter(range(len(every)))
    parts = [_beside([found[next(mine)] for _ in several]) for several in crops]
    return [
        reader.vectors(part, reader.labels(vision, picture, 0, of), picture)
        for part, (picture, of) in zip(parts, read, strict=True)
    ]


def _beside(crops: list[torch.Tensor]) -> Any:
    """The projected crops of a picture, [crop, pos, d_model]; a list where their sizes differ."""
    return torch.stack(crops) if len({one.shape for one in crops}) == 1 else crops


def _several_sizes(read: Sequence[Any], crops: Sequence[Sequence[torch.Tensor]]) -> str:
    """Why hooks on the encoder are refused: pictures, or crops of one, have several sizes."""
    for (picture, _), several in zip(read, crops, strict=True):
        if len({pixels.shape for pixels in several}) > 1:
            return (
                f"A picture of {picture.width} x {picture.height} pixels is cut into tiles and a"
                " thumbnail of another size, read one after the other, and hooks on the encoder or"
                " the projection, unlike edits, see all crops at once: ask in the language model,"
                " whose site 'embed' has every position, make the picture smaller, or set"
                " processor.image_processor.use_thumbnail = False."
            )
    return (
        "These pictures are read in different sizes, one after the other, and hooks on the encoder"
        " or the projection, unlike edits, see all pictures at once: give pictures of one size, or"
        " one at a time."
    )
