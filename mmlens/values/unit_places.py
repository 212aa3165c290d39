"""Where Neurons and Heads stand in results: on an axis of their own, or on layer and unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmlens.values.addresses import find, in_pairs, read_address
from mmlens.values.errors import AddressError
from mmlens.values.labels import Head, Neuron

if TYPE_CHECKING:
    import torch

    from mmlens.values.scores import Scores


def axis_of(units: Any) -> str:
    """The axis of single units: "neuron" or "head"."""
    one = units[0] if isinstance(units, list) else units
    return "head" if isinstance(one, Head) else "neuron"


def by_unit(
    address: Sequence[Any], by_axis: Mapping[str, Any], axes: Sequence[str]
) -> tuple[list[Any], dict[str, Any]]:
    """An address in which units that have an axis of their own are named by it.

    Args:
        axes: those of the result. With an axis `neuron` and no `layer`, a Neuron is a label.
    """
    rest, named = [], dict(by_axis)
    for part in address:
        unit = isinstance(part, (Neuron, Head, list))
        if unit and axis_of(part) in axes and "layer" not in axes:
            named[axis_of(part)] = part
        else:
            rest.append(part)
    return rest, named


def at_units(
    scores: Scores, units: list[Any], readers: int
) -> tuple[torch.Tensor, tuple[str, ...], dict[str, Any]]:
    """Values, axes and labels at several units, whose axes become one in front.

    Raises:
        AddressError: no such unit, or Neurons beside Heads.
    """
    import torch

    places = _indices(scores, units, readers)
    dims = [scores.axes.index(axis) for axis in places]
    at = tuple(torch.tensor(index, device=scores.values.device) for index in places.values())
    values = scores.values.movedim(dims, list(range(len(dims))))[at]
    rest = tuple(axis for axis in scores.axes if axis not in places)
    name = axis_of(units)
    return values, (name, *rest), {name: tuple(units), **{a: scores.labels.get(a) for a in rest}}


def _indices(scores: Scores, units: list[Any], readers: int) -> dict[str, list[int]]:
    """The index of each unit on each of the axes that a unit has."""
    in_pairs(units)  # refuses what does not stand on the same axes
    found: dict[str, list[int]] = {}
    for unit in units:
        for field, wanted in read_address([unit], {}, readers).items():
            axis = "channel" if field == "unit" and "unit" not in scores.axes else field
            at = find(scores.of(axis), wanted, axis)
            if not isinstance(at, int):
                raise AddressError(f"{unit} stands {len(at)} times on the axis {axis!r} here.")
            found.setdefault(axis, []).append(at)
    return found
