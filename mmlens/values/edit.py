"""Edits: values that replace activations at a site and address.

    Edit("neurons", 0.0, Neuron(3, 17), pos=Patch)      # ablate: a number
    Edit("resid_post", other_run, layer=4, pos=Patch)   # patch: another run's Scores
    Edit.steer("resid_post", direction, layer=5)        # steer: add a direction
    Edit("mlp_out", lambda x: x * 2, layer=2)           # anything: a function of the values there

An edit is a value; `model.edit(*edits)` is a model with the edits applied. Positions are those of
the prompt: an edit at prompt positions acts while the prompt is read, one without positions acts at
every step of a generation. So does the last position, -1, and a slice up to the end: each new token
is the last position when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmlens.values.addresses import (
    POSITIONS,
    check_expert,
    check_tower,
    in_pairs,
    places,
    reaches_the_end,
    read_address,
)
from mmlens.values.edit_values import called, check_value, from_scores
from mmlens.values.errors import AddressError, SiteError
from mmlens.values.labels import Head, Label
from mmlens.values.maps import MAP, inner_of, is_map
from mmlens.values.scores import Scores
from mmlens.values.sites import Site, grouped, site
from mmlens.values.unit_lists import has_units, plain_address
from mmlens.values.written import written

if TYPE_CHECKING:
    import torch

Rows = tuple[tuple[Label, ...], ...]
Names = Mapping[str, tuple[Label, ...]]
"""The labels of each axis of positions in one row."""
Value = Any
"""A number, Scores, a tensor (a direction or values), or a function tensor -> tensor."""


@dataclass(frozen=True, init=False, eq=False)
class Edit:
    """At `site` and address, `value` instead of what the model computed.

    Args:
        site: a site name, or a full hook name.
        value: a number, another run's Scores, a tensor that broadcasts to the values at the address
            (`[..., unit]`), or a function of them.
        address: a Neuron, Head, Patch or Token, the types Patch and Token, or a list or table of
            Neurons (or Heads), each in its own layer.
        by_axis: `layer=`, `pos=`, `unit=`, `head=`, `dim=`: labels, slices, types or lists.

    Raises:
        SiteError: no such site. AddressError: the site has no such axis.
    """

    site: Site
    value: Value
    address: Mapping[str, Any]
    add: bool

    def __init__(
        self, site_name: str, value: Value, *address: Any, add: bool = False, **by_axis: Any
    ) -> None:
        if has_units(site_name):
            raise SiteError(f"{site_name!r} is no site: write Edit('neurons', 0.0, {site_name!r}).")
        where, address = site(site_name), plain_address(address)
        check_tower(address, where.owner, site_name)
        check_expert(address, where.axes, site_name)
        if grouped(where):  # which key or value a Head reads depends on the model: `sharing`
            address = tuple([part] if isinstance(part, Head) else part for part in address)
        check_value(value)
        wanted = read_address([part for part in address if not _is_list(part)], by_axis)
        for several in filter(_is_list, address):
            wanted.update(in_pairs(several))
        if where.layer is not None:
            wanted.setdefault("layer", where.layer)
        maps = () if where.in_lm or not where.layered else (*MAP, "unit", "dim")  # of maps
        _check_axes(wanted, where, (*where.axes, *maps), where.axes)
        object.__setattr__(self, "site", where)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "address", wanted)
        object.__setattr__(self, "add", add)

    @classmethod
    def steer(
        cls,
        site_name: str,
        direction: torch.Tensor,
        *address: Any,
        scale: float = 1.0,
        **by_axis: Any,
    ) -> Edit:
        """Add `scale * direction` (shape of the site's last axis) at the address."""
        return cls(site_name, direction * scale, *address, add=True, **by_axis)

    def __repr__(self) -> str:
        shown = isinstance(self.value, (int, float, Scores))
        named = written if callable(self.value) else lambda value: type(value).__name__
        value = repr(self.value) if shown else named(self.value)
        parts = [repr(self.site.name), f"+{value}" if self.add else value]
        parts += [f"{axis}={want}" for axis, want in self.address.items()]
        return f"Edit({', '.join(parts)})"

    def sharing(self, readers: int, n_heads: int) -> Edit:
        """This edit on a model in which `readers` Heads share a key and a value.

        Raises:
            AddressError: no such head.
        """
        pairs = self.address.get("pairs", ())
        if not pairs or not grouped(self.site):
            return self
        places(range(n_heads), [head for _, head in pairs], "head")
        read = tuple(dict.fromkeys((layer, head // readers) for layer, head in pairs))
        out = copy(self)
        object.__setattr__(out, "address", {**self.address, "pairs": read})
        return out

    def fitted(self, real: Site) -> Edit:
        """This edit with the site's measured axes: in a map units and dims are its channels.

        Args:
            real: the site with its measured axes (`Tower.site`).

        Raises:
            AddressError: it has no such axis.
        """
        if real.axes == self.site.axes:
            _check_axes(self.address, real, real.axes, real.axes)
            return self
        wanted, axes = dict(self.address), real.axes
        if is_map(axes):
            inner = inner_of(axes)
            for other in ({"unit", "dim", "channel"} & set(wanted)) - {inner}:
                wanted[inner] = wanted.pop(other)
            by_patch = "pos" in wanted or (isinstance(self.value, Scores) and self._has("pos"))
            axes = ("pos", inner) if by_patch else axes
        _check_axes(wanted, real, axes, real.axes)
        out = copy(self)
        object.__setattr__(out, "address", wanted)
        object.__setattr__(out, "site", real.holding(axes))
        return out

    def _has(self, axis: str) -> bool:
        return axis in self.value.axes

    def layers(self, every: Sequence[int]) -> list[int | None]:
        """The layers it acts on; `[None]` at a site that has no layers.

        Raises:
            AddressError: no such layer.
        """
        if not self.site.layered:
            return [None]
        wanted = self.address.get("layer")
        if "pairs" in self.address:
            wanted = sorted({layer for layer, _ in self.address["pairs"]})
        elif wanted is None and isinstance(self.value, Scores) and "layer" in self.value.axes:
            wanted = list(self.value.of("layer"))
        return [every[place] for place in places(every, wanted, "layer")]

    def apply_(
        self,
        values: torch.Tensor,
        layer: int | None,
        labels: Rows,
        start: int = 0,
        keys: Rows = (),
    ) -> torch.Tensor:
        """Apply the edit to `values` [batch, *site.axes], in place.

        Args:
            labels: per row of the batch (or per group of rows, for beams), the label of every
                position of the prompt.
            start: the prompt position at which `values` begins (later steps of a generation).
            keys: per row as well, the label of every key of cross-attention.
        """
        missing, n = 0, values.shape[0]
        for row in range(n):
            names: dict[str, Any] = dict.fromkeys(
                POSITIONS, labels[row * len(labels) // n] if labels else ()
            )
            if self.site.has_other_keys:
                names["key"] = keys[row * len(keys) // n] if keys else ()
            try:
                place = self._place(values[row], layer, names, start)
            except AddressError:  # in the encoder the label may be of another picture
                missing += 1
                if self.site.in_lm or missing == n:
                    raise
                continue
            if place is not None:
                old, shape = values[(row, *place)], tuple(values.shape[1:])
                values[(row, *place)] = self._new(old, layer, names, place, start, shape)
        return values

    def _place(
        self, values: torch.Tensor, layer: int | None, names: Names, start: int
    ) -> tuple[Any, ...] | None:
        """One index tensor per axis, shaped to broadcast against each other; None if not here."""
        import torch

        index: list[torch.Tensor] = []
        for dim, axis in enumerate(self.site.axes):
            size, wanted = values.shape[dim], self.wanted(axis, layer)
            if wanted is None or axis not in POSITIONS:
                hits = places(range(size), wanted, axis)
            else:
                begin = self.site.begins(axis, tuple(values.shape), start)
                every = places(names[axis], wanted, axis)
                if axis != "key" and reaches_the_end(wanted) and self._fits_one(dim):
                    every = [*every, *range(len(names[axis]), begin + size)]
                hits = [i - begin for i in every if begin <= i < begin + size]
            if not hits:
                return None
            shape = [1] * values.ndim
            paired = axis == "expert" and "experts" in self.address
            shape[dim + paired] = len(hits)  # each unit with its own expert
            index.append(torch.tensor(hits, device=values.device).view(shape))
        return tuple(index)

    def _fits_one(self, dim: int) -> bool:
        """Whether the value broadcasts over positions: it has no axis of positions."""
        if isinstance(self.value, Scores):
            return self.site.axes[dim] not in self.value.axes
        shape = tuple(getattr(self.value, "shape", ()))
        at = dim - len(self.site.axes) + len(shape)
        return at < 0 or shape[at] == 1

    def wanted(self, axis: str, layer: int | None) -> Any:
        """What of an axis is addressed in a layer, as in `Scores.sel`; None for all of it."""
        if axis == "expert" and "experts" in self.address:
            return [expert for at, expert in self.address["experts"] if at == layer]
        if axis in ("unit", "head", "channel") and "pairs" in self.address:
            return [unit for at, unit in self.address["pairs"] if at == layer]
        if axis in self.address:
            return self.address[axis]
        if (
            isinstance(self.value, Scores)
            and axis in self.value.axes
            and self.value.labels.get(axis) is not None
        ):
            return list(self.value.of(axis))
        return None

    def _new(
        self,
        old: torch.Tensor,
        layer: int | None,
        names: Names,
        place: tuple[Any, ...],
        start: int,
        shape: tuple[int, ...],
    ) -> torch.Tensor:
        import torch

        if isinstance(self.value, Scores):
            new = from_scores(self, layer, names, place, start, shape)
        elif callable(self.value):
            new = called(self, old)
            if not isinstance(new, torch.Tensor):
                raise AddressError(
                    "The function of an Edit must return the new values (a tensor), not"
                    f" {type(new).__name__}."
                )
        else:
            new = torch.as_tensor(self.value, dtype=old.dtype, device=old.device)
        try:
            new = new.to(old).expand_as(old)
        except RuntimeError:
            raise AddressError(
                f"The value of {self!r} has shape {tuple(new.shape)}, which does not fit"
                f" {tuple(old.shape)} (axes {', '.join(self.site.axes)})."
            ) from None
        return old + new if self.add else new


def _check_axes(
    wanted: Mapping[str, Any], where: Site, known: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    front = (*where.around, *(("layer",) if where.layered else ()))
    for axis in ("expert" if axis == "experts" else axis for axis in wanted):
        if axis not in (*front, *known, "pairs"):
            raise AddressError(
                f"Site {where.name!r} has no axis {axis!r}: it has {', '.join((*front, *shown))}."
            )


def _is_list(part: Any) -> bool:
    return hasattr(part, "__iter__") and not isinstance(part, (str, type))
