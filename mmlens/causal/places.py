"""Places of a patch: the positions and inner indices of a site, addressed by labels.

    pos=Patch                                   one after the other: every patch alone
    pos={"object": patches, "rest": others}     together: named sets of positions

At a site of the language model positions are those of the prompt; inside the vision encoder they
are the patches of its pictures (with [CLS]); at the pixels, the squares that become patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlens.causal.picture_boxes import patch_boxes
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.values.addresses import places
from mmlens.values.arguments import count, number, several, shown
from mmlens.values.errors import AddressError, PictureError, PromptError, SiteError, nearest
from mmlens.values.labels import Patch
from mmlens.values.maps import is_map
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import Site, readers, site

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.model.hooked_vlm import HookedVLM

Indices = Sequence[int] | Int[Tensor, " _"] | None
INNER = ("head", "unit", "dim")


@dataclass(frozen=True)
class Place:
    """A site in one prompt.

    Attributes:
        site: the site.
        labels: one per position, the pictures of a prompt concatenated.
        inner: the axis after the positions that can be addressed, or None.
        sizes: of the inner axis and of those after it.
        grid: rows and columns of patches, where the site holds pixels.
    """

    site: Site
    labels: tuple[Any, ...]
    inner: str | None
    sizes: tuple[int, ...]
    n_pictures: int = 1

    @property
    def width(self) -> int:
        """How many positions there are."""
        return len(self.labels)

    def mask(
        self, pos: Sequence[Indices], inner: Sequence[Indices], device: torch.device
    ) -> tuple[Bool[Tensor, "row ..."], Bool[Tensor, "row ..."] | None]:
        """The mask of the values that each row takes, by its positions and its inner indices.

        Args:
            pos: per row, indices of positions (None: all).
            inner: per row, indices on the inner axis (None: all).

        Returns:
            [row, pos, ...], in the vision tower [row, picture, pos, ...]; and the same for the
            inner axis, or None where every row takes all of it. In the language model the last
                column also stands for positions generated after the prompt: only None includes them
                (and it is the only column where no row names positions).
        """
        in_lm, pixels = self.site.in_lm, self.site.name == "pixels"
        alike = in_lm and all(some is None or len(some) == 0 for some in pos)
        where = torch.zeros(len(pos), 1 if alike else self.width + in_lm, dtype=torch.bool)
        for row, some in zip(where, pos, strict=True):
            row[slice(None) if some is None else torch.as_tensor(some, dtype=torch.long)] = True
        if pixels:
            return self._pixels(where).to(device), None
        tail = (1,) * len(self.sizes)
        lead = (
            (len(pos), -1) if in_lm else (len(pos), self.n_pictures, self.width // self.n_pictures)
        )
        where = where.reshape(*lead, *tail).to(device)
        if all(some is None for some in inner):
            return where, None
        chosen = torch.zeros(len(pos), self.sizes[0], dtype=torch.bool)
        for row, some in zip(chosen, inner, strict=True):
            row[slice(None) if some is None else torch.as_tensor(some, dtype=torch.long)] = True
        between = (1,) * (where.ndim - 1 - len(tail))
        return where, chosen.reshape(len(pos), *between, self.sizes[0], *tail[1:]).to(device)

    def _pixels(self, where: Bool[Tensor, "row pos"]) -> Bool[Tensor, "row picture 1 y x"]:
        last = self.labels[-1]
        rows, cols = last.row + 1, last.col + 1
        cells = where.reshape(len(where), self.n_pictures, 1, rows, cols)
        high, wide = self.sizes
        y = torch.arange(high) * rows // high
        x = torch.arange(wide) * cols // wide
        return cells[..., y[:, None], x]


def place_of(model: HookedVLM, soft: SoftPrompt, name: str) -> Place:
    """A site in a prompt.

    Raises:
        SiteError: no such site, or one that is not made of positions.
        PromptError: a site of the vision encoder and a prompt without pictures.
    """
    where = site(name)
    cfg = model.cfg
    if "key" in where.axes:
        raise SiteError(
            f"{name!r} is not made of positions: cut routes with patching.knockout(...), or patch"
            " 'z', the values that a head reads through its pattern."
        )
    if where.in_lm:
        inner = next((axis for axis in INNER if axis in where.axes), None)
        heads = (int(cfg.n_heads) // readers(where, cfg), cfg.d_head)
        if inner == "unit" and not model.lm.units.width:
            model.lm.units.need_at(model.name, where)
        width = model.lm.units.width if inner == "unit" else 0
        sizes = {"unit": (width,), "head": heads, "dim": (cfg.d_model,)}[inner or "dim"]
        return Place(where, soft.labels[0], inner, sizes)
    if model.vision is None or not any(prompt.pictures for prompt in soft.prompts):
        raise PromptError(f"Site {name!r} is in pictures, and this prompt has none of its own.")
    every = list(hooking.layers(model, where)) if where.layered else [None]
    _refuse_maps(where, hooking.check_places(model, where, every))
    rows = model.picture_rows(soft.prompts, where, every[0])
    if any(model.picture_rows(soft.prompts, where, layer) != rows for layer in every[1:]):
        raise SiteError(
            f"The layers of {where.name!r} have grids of different sizes: name one of them, as in"
            f" {where.at(every[-1])!r}."
        )
    labels = tuple(label for row in rows for label in row)
    if where.name == "pixels":
        return Place(where, labels, None, tuple(model.vision.image_size), len(rows))
    inner = next((axis for axis in INNER if axis in where.axes), None)
    return Place(where, labels, inner, _vision_sizes(model, where), len(rows))


def _refuse_maps(where: Site, real: Mapping[int | None, Site]) -> None:
    """Refuse a site that holds maps, whose rows and columns differ from layer to layer."""
    layer, found = next(iter(real.items()))
    if is_map(found.axes):
        raise SiteError(
            f"{where.name!r} holds a map in layer {layer} ({', '.join(found.axes)}), not a row per"
            " patch: patch 'features' or 'soft_prompt' of this encoder, or edit the map."
        )


def _vision_sizes(model: HookedVLM, where: Site) -> tuple[int, ...]:
    """Sizes of the axes after the positions, read from one forward pass."""
    if where.tower == "projection":
        return (int(model.cfg.d_model),)
    seen: list[torch.Tensor] = []
    point = hooking.points(model)[hooking.names(model, where.at(0 if where.layered else None))[0]]
    point.add_hook(lambda tensor, hook: seen.append(tensor))
    kept = point.fwd_hooks[-1]
    pixels = torch.zeros(1, 3, *model.vision.image_size)
    try:
        with torch.no_grad(), model.lm.lock:
            model.vision(pixels.to(model.vision.device, model.vision.dtype))
    finally:
        kept.hook.remove()
        point.fwd_hooks.remove(kept)
    return tuple(seen[0].shape[2:])


def groups(
    labels: Sequence[Any], wanted: Any, axis: str, each: bool
) -> tuple[tuple[Any, ...] | None, list[tuple[int, ...]]]:
    """Labels and indices of the groups that are patched together along one axis.

    Args:
        wanted: an address, or a mapping from names to addresses.
        each: one label at a time (otherwise the whole address together; a mapping always by name).

    Returns:
        (labels, or None where the axis is one group without a name; the indices of each group).
    """
    if isinstance(wanted, Mapping):
        sets = [list(some) if isinstance(some, tuple) else some for some in wanted.values()]
        found = [() if some == [] else tuple(places(labels, some, axis)) for some in sets]
        if not found:
            raise AddressError(f"{axis}={{}} names no set: write {axis}={{'object': [...]}}.")
        return tuple(wanted), found
    found = places(labels, wanted, axis)
    if not found:
        raise AddressError(f"{axis}={wanted!r} names nothing: write some, or leave it out for all.")
    if each:
        return tuple(labels[i] for i in found), [(i,) for i in found]
    return None, [tuple(found)]


def read_by(by: Sequence[str] | str | None, default: tuple[str, ...], site: Site) -> set[str]:
    """The axes that are patched one label at a time.

    Raises:
        AddressError: an axis that the site does not have.
    """
    chosen = (
        default
        if by is None
        else (by,)
        if isinstance(by, str)
        else tuple(several(by, "by", least=0))
    )
    known = (*(("layer",) if site.layered else ()), "pos", *[a for a in INNER if a in site.axes])
    for axis in chosen:
        if axis not in known:
            raise AddressError(f"Site {site.name!r} has no axis {axis!r}: {nearest(axis, known)}")
    return set(chosen)


@needs("pictures")
def patches_under(
    model: HookedVLM, mask: Any, picture: Image.Image, share: float = 0.5, image: int = 0
) -> list[Patch]:
    """The patches of which at least a `share` is covered by a mask of the picture.

    Args:
        mask: Bool[height, width] (or anything NumPy converts to it), of the picture's size.
        image: which picture of the prompt it is.

    Raises:
        PictureError: the mask has another size.
    """
    number(share, "share", above=0, most=1)
    count(image, "image", least=0)
    picture = open_picture(picture)
    array = np.asarray(mask.cpu() if isinstance(mask, torch.Tensor) else mask)
    if array.dtype.kind not in "biuf":
        raise PictureError(f"mask={shown(mask)} is no mask: give Bool[height, width].")
    array = array > 0
    if array.shape != (picture.height, picture.width):
        raise PictureError(
            f"A mask of {array.shape} does not fit a picture of {picture.height} rows and"
            f" {picture.width} columns."
        )
    found = []
    for patch, (x0, y0, x1, y1) in patch_boxes(model, picture).items():
        cell = array[max(0, y0) : max(y1, y0 + 1), max(0, x0) : max(x1, x0 + 1)]
        if cell.size and cell.mean() >= share:
            found.append(replace(patch, image=image))
    return found


def other_patches(labels: Sequence[Any], chosen: Sequence[Patch], seed: int = 0) -> list[Patch]:
    """As many patches of the prompt that are not among the chosen: the control of a region.

    Raises:
        AddressError: there are too few others, or a chosen one is not among the labels.
    """
    labels, chosen = several(labels, "labels", least=0), several(chosen, "chosen", least=0)
    gone = [patch for patch in chosen if patch not in labels]
    if gone:
        raise AddressError(f"Patch {gone[0]} is not among these labels, so it has no control.")
    seed = count(seed, "seed", least=0)
    rest = [x for x in labels if isinstance(x, Patch) and x not in set(chosen)]
    if len(rest) < len(chosen):
        raise AddressError(
            f"There are {len(rest)} patches beside these {len(chosen)}, too few for a control."
        )
    drawn = np.random.default_rng(seed).permutation(len(rest))[: len(chosen)]
    return [rest[i] for i in sorted(drawn)]
