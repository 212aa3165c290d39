"""Places of a patch: the positions and inner indices of a site, addressed by labels.

    pos=Patch                                   one after the other: every patch alone
    pos={"object": patches, "rest": others}     together: named sets of positions

At a site of the language model positions are those of the prompt; inside an encoder they are the
patches of its pictures (with [CLS]) or the tokens of its text; in the map of a convolution, its
cells; at the pixels, the squares that become patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlens.model import hooking
from mmlens.model.capture import capture
from mmlens.values.addresses import places
from mmlens.values.arguments import several, shown
from mmlens.values.errors import AddressError, PromptError, SiteError, nearest
from mmlens.values.labels import TEXT
from mmlens.values.maps import as_map, as_positions, inner_of, is_map
from mmlens.values.sites import Site, readers, site

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

Indices = Sequence[int] | Int[Tensor, " _"] | None
INNER = ("expert", "head", "unit", "dim")


@dataclass(frozen=True)
class Place:
    """A site in one prompt.

    Attributes:
        site: the site.
        labels: one per position, the pictures of a prompt concatenated.
        inner: the axis after the positions that can be addressed, or None.
        sizes: of the inner axis and of those after it.
        n_pictures: how many pictures (or crops, or texts) an encoder reads.
        axes: of the map that a layer of convolutions holds; positions are its cells.
        flat: whether an inner index counts the units of all experts in turn, and not the experts.
    """

    site: Site
    labels: tuple[Any, ...]
    inner: str | None
    sizes: tuple[int, ...]
    n_pictures: int = 1
    axes: tuple[str, ...] | None = None
    flat: bool = False

    @property
    def width(self) -> int:
        """How many positions there are."""
        return len(self.labels)

    @property
    def behind(self) -> tuple[str, ...]:
        """The axes after the positions."""
        if self.axes is not None:
            return (inner_of(self.axes),)
        return tuple(axis for axis in self.site.axes if axis != "pos")

    def by_position(self, values: torch.Tensor) -> torch.Tensor:
        """What the site holds as [..., pos, ...]: a map is read in reading order."""
        return values if self.axes is None else as_positions(values, self.axes)

    def as_before(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """[..., pos, ...] as the site holds it."""
        return values if self.axes is None else as_map(values, like, self.axes)

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
        n = math.prod(self.sizes) if self.flat else self.sizes[0]
        chosen = torch.zeros(len(pos), n, dtype=torch.bool)
        for row, some in zip(chosen, inner, strict=True):
            row[slice(None) if some is None else torch.as_tensor(some, dtype=torch.long)] = True
        between = (1,) * (where.ndim - 1 - len(tail))
        sizes = self.sizes if self.flat else (n, *tail[1:])
        return where, chosen.reshape(len(pos), *between, *sizes).to(device)

    def _pixels(self, where: Bool[Tensor, "row pos"]) -> Bool[Tensor, "row picture 1 y x"]:
        last = self.labels[-1]
        rows, cols = last.row + 1, last.col + 1
        cells = where.reshape(len(where), self.n_pictures, 1, rows, cols)
        high, wide = self.sizes
        y = torch.arange(high) * rows // high
        x = torch.arange(wide) * cols // wide
        return cells[..., y[:, None], x]


def place_of(model: HookedModel, reading: Any, name: str, layers: Any = None) -> Place:
    """A site in a prompt.

    Args:
        reading: the prompt as the model reads it.
        layers: the address of those that are asked for, as layers of an encoder differ in shape.

    Raises:
        SiteError: no such site, or one that is not made of positions.
        PromptError: a site of an encoder, and nothing that it reads in the prompt.
    """
    where = site(name)
    if where.axes == ("dim",):
        raise SiteError(f"{name!r} has no positions: edit it, as in Edit({name!r}, 0.0).")
    if "key" in where.axes:
        raise SiteError(
            f"{name!r} is not made of positions: cut routes with patching.knockout(...), or patch"
            " 'z', the values that a head reads through its pattern."
        )
    if not where.in_lm:
        return _in_encoder(model, reading, where, layers)
    lm: Any = hooking.tower_at(model, where)
    inner, cfg = next((axis for axis in INNER if axis in where.axes), None), lm.cfg
    heads = (int(cfg.n_heads) // readers(where, cfg), cfg.d_head)
    if where.of_dictionary:
        return Place(where, reading.labels[0], inner, (_coded(model, where, layers),))
    if inner == "unit" and not lm.units.width:
        lm.units.need_at(model.name, where)
    width = lm.units.width if inner == "unit" else 0
    if inner == "expert":
        return Place(where, reading.labels[0], inner, _experts(model, where))
    sizes = {"unit": (width,), "head": heads, "dim": (cfg.d_model,)}[inner or "dim"]
    return Place(where, reading.labels[0], inner, sizes)


def _coded(model: HookedModel, where: Site, layers: Any) -> int:
    """How many coordinates the dictionaries of these layers have at a site.

    Raises:
        SiteError: they differ.
    """
    every: Any = hooking.tower_at(model, where).dictionaries
    chosen = [every[at].dictionary for at in layers_at(model, where, layers)]
    sizes = {one.n_units if where.of_units else one.d_out for one in chosen}
    if len(sizes) > 1:
        raise SiteError(
            f"The dictionaries at {where.name!r} differ in size: ask about one layer, as in"
            f" layer={next(iter(every))}."
        )
    return sizes.pop()


def _experts(model: HookedModel, where: Site) -> tuple[int, ...]:
    """How many experts a layer has, and units of each where the site is made of them."""
    lm: Any = hooking.tower_at(model, where)
    mixture = lm.mixtures[hooking.layers(model, where)[0]]
    return (mixture.n, mixture.width)[: len(where.axes) - 1]


def _in_encoder(model: HookedModel, reading: Any, where: Site, layers: Any) -> Place:
    """A site of an encoder: what it reads are rows of pictures (or texts), padding included."""
    of_texts = where.tower == TEXT
    if not any(prompt.text if of_texts else prompt.pictures for prompt in reading.prompts):
        what = "texts" if of_texts else "pictures"
        raise PromptError(f"Site {where.name!r} is in {what}, and this prompt has none of its own.")
    every: list[int | None] = list(layers_at(model, where, layers))
    real = hooking.check_places(model, where, every)
    rows = [model.picture_rows(reading.prompts, where, layer) for layer in every]
    labels = tuple(label for row in rows[0] for label in row)
    if where.name == "pixels":
        vision: Any = model.towers[where.tower]
        picture = next(picture for one in reading.prompts for picture in one.pictures)
        size = model.image_reader.size(vision, picture)
        return Place(where, labels, None, tuple(size), len(rows[0]))
    axes = real[every[0]].axes
    mapped = axes if is_map(axes) else None
    sizes = _sizes(model, reading, where, every, mapped)
    alike = {(real[at].axes, row, size) for at, row, size in zip(every, rows, sizes, strict=True)}
    if len(alike) > 1:
        raise SiteError(
            f"The layers of {where.name!r} differ in shape: ask about one, as in layer={every[-1]}."
        )
    inner = inner_of(axes) if mapped else next((axis for axis in INNER if axis in axes), None)
    return Place(where, labels, inner, sizes[0], len(rows[0]), mapped)


def stays(reading: Any, where: Site) -> dict[str, str]:
    """For `about`: what of the pictures a change of the stream leaves as it is."""
    deep = getattr(reading, "deep", None)
    if deep is None or not (where.name == "embed" or where.name.startswith("resid")):
        return {}
    layers = " and ".join(map(str, range(deep.shape[2])))
    return {"stays": f"what pictures add behind layers {layers}, the site 'deepstack'"}


def layers_at(model: HookedModel, where: Site, wanted: Any = None) -> Sequence[Any]:
    """The layers of a site that are asked for: [None] where it has none."""
    if not where.layered:
        return [None]
    every = hooking.layers(model, where)
    wanted = where.layer if wanted is None else wanted
    return [every[index] for index in places(every, wanted, "layer")]


def _sizes(
    model: HookedModel,
    reading: Any,
    where: Site,
    layers: Sequence[int | None],
    mapped: tuple[str, ...] | None,
) -> list[tuple[int, ...]]:
    """Per layer the sizes of the axes after the positions, read from one forward pass."""

    def sizes(tensor: torch.Tensor) -> tuple[int, ...]:
        return tuple((tensor if mapped is None else as_positions(tensor, mapped)).shape[2:])

    names = [where.at(layer) for layer in layers]
    with torch.no_grad(), capture(model, names, sizes) as found:
        model.run_to(where.tower, reading)
    return [found[name] for name in names]


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
        empty = ([], ())  # a set without members is patched nowhere
        found = [() if isinstance(some, (list, tuple)) and some in empty else
                 tuple(places(labels, some, axis)) for some in wanted.values()]  # fmt: skip
        if not found:
            raise AddressError(f"{axis}={{}} names no set: write {axis}={{'object': [...]}}.")
        return tuple(wanted), found
    found = places(labels, wanted, axis)
    if not found:
        raise AddressError(f"{axis}={wanted!r} names nothing: write some, or leave it out for all.")
    if each:
        return tuple(labels[i] for i in found), [(i,) for i in found]
    return None, [tuple(found)]


def read_by(by: Sequence[str] | str | None, default: tuple[str, ...], where: Place) -> set[str]:
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
    site, inner = where.site, () if where.inner is None else (where.inner,)
    known = (*(("layer",) if site.layered else ()), "pos", *inner)
    for axis in chosen:
        if not isinstance(axis, str) or axis not in known:
            raise AddressError(
                f"Site {site.name!r} has no axis {shown(axis)}: {nearest(str(axis), known)}"
            )
    return set(chosen)
