"""One picture and what is known of it, and many of them in an order that stays.

    sample = mm.dataset("pictos:held_out:200")[7]
    sample.image, sample.captions        # a PIL image; everything that people said of it
    sample.things[0].mask                # Bool[height, width] of the first thing in it

A `Sample` opens its picture when it is asked for it. `Samples` knows how many there are and what
each is called before any is read, so that work on them can be divided, stopped and gone on with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from mmlens.datasets.caption_pairs import DataError
from mmlens.values.arguments import function
from mmlens.values.pictures import open_named

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels from the upper left corner; x1 and y1 lie just outside."""


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing in a picture.

    Attributes:
        name: what it is, "dog".
        mask: Bool[height, width] of the picture, or None where nobody drew one.
        box: around it, or None where nothing of it is seen.
    """

    name: str
    mask: Bool[Tensor, "height width"] | None = field(default=None, repr=False)
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and what is known of it.

    Attributes:
        id: its name in its data set, different for each.
        source: what `mmlens.values.pictures.open_picture` takes: a path, bytes, a PIL image.
        captions: what people said of it; none, one or several.
        things: what it shows, where that is annotated.
        split: the part of the data that it is from.
    """

    id: str
    source: Any = field(repr=False)
    captions: tuple[str, ...] = ()
    things: tuple[Thing, ...] = field(default=(), repr=False)
    split: str = ""

    @cached_property
    def image(self) -> Image.Image:
        """The picture, RGB and upright, opened at first use.

        Raises:
            PictureError: it cannot be read; the sentence names it.
        """
        return open_named(self.source, self.id)

    @property
    def names(self) -> tuple[str, ...]:
        """What it shows, each name once, in the order of `things`."""
        return tuple(dict.fromkeys(thing.name for thing in self.things))


class SampleIndexError(DataError, IndexError):
    """A data set has no sample of that number."""


class Samples(Sequence[Sample]):
    """Samples in an order that stays; a slice is a data set again.

    Args:
        name: what the data are called in a sentence and in a record, without a folder of this
            machine.
        ids: of all samples, in order.
        read: the sample at a place.
        digest: the content hash; each loader says what it covers.

    Raises:
        DataError: no samples, or two of the same id.
    """

    def __init__(
        self, name: str, ids: Iterable[str], read: Callable[[int], Sample], digest: str
    ) -> None:
        write = "a function of a sample's place, such as list.__getitem__ of samples"
        self._read = function(read, "read", write, takes=1, error=DataError)
        self.name, self.ids, self.hash = name, tuple(ids), digest
        if not self.ids:
            raise DataError(f"There are no pictures in {name}.")
        if len(set(self.ids)) < len(self.ids):
            seen: set[str] = set()
            twice = next(one for one in self.ids if one in seen or seen.add(one))
            raise DataError(f"Two samples of {name} are called {twice!r}: give each its own name.")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.pick(range(len(self))[index])
        return self._read(self._place(index))

    def pick(self, places: Iterable[int]) -> Samples:
        """These samples alone, in this order, as a data set of its own hash."""
        chosen = [self._place(place) for place in places]
        ids = [self.ids[place] for place in chosen]
        return Samples(
            f"{len(chosen)} of {self.name}",
            ids,
            lambda place: self._read(chosen[place]),
            content_hash(self.hash, *ids),
        )

    def _place(self, index: Any) -> int:
        try:
            return range(len(self))[index]
        except IndexError:
            raise SampleIndexError(
                f"There is no sample {index} in {self.name}: it has {len(self)}."
            ) from None
        except TypeError:
            raise DataError(
                f"A sample of {self.name} has a number, not {index!r}: write samples[0],"
                " samples[:10], or samples[samples.ids.index(id)]."
            ) from None

    def __repr__(self) -> str:
        return f"Samples({self.name}, {len(self)})"


def content_hash(*parts: str | bytes) -> str:
    """sha256 over the parts, so that no two lists of parts are taken for one another."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()
