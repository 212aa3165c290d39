"""Addresses: how labels on axes are named and found.

In general an address is `axis = labels` (`layer=3`, `pos=Patch`); labels whose type determines the
axis, such as a Neuron, need no keyword. `read_address` reads one, `find` and `places` look it up.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError
from mmlens.values.labels import Head, Marker, Neuron, Padding, Patch, Token

POSITIONS = ("pos", "query", "key")
"""Axes whose labels are the positions of a prompt."""


_PLACES = (Patch, Marker, Token)
"""Labels of positions."""


def read_address(
    address: Sequence[Any], by_axis: Mapping[str, Any], readers: int = 1
) -> dict[str, Any]:
    """`axis -> wanted` from positional labels (their type determines the axis) and keywords.

    Args:
        readers: how many Heads share one index of the axis `head` (`sites.readers`).
    """
    wanted: dict[str, Any] = {}
    for part in address:
        if isinstance(part, Neuron):
            found = {"layer": part.layer, "expert": part.expert, "unit": part.unit}
            found = {axis: at for axis, at in found.items() if at is not None}
        elif isinstance(part, Head):
            found = {"layer": part.layer, "head": part.head // readers}
        elif isinstance(part, _PLACES) or any(part is kind for kind in _PLACES):
            found = {"pos": part}
        else:
            raise AddressError(
                f"{part!r} is no address by itself: name its axis, as in layer=3 or pos=Patch."
            )
        wanted.update(found)
    wanted.update({axis: want for axis, want in by_axis.items() if want is not None})
    return {axis: plain(want, axis) for axis, want in wanted.items()}


def check_tower(address: Sequence[Any], tower: str, site: str) -> None:
    """Refuse neurons and heads of another tower than the one that a site is in.

    Raises:
        AddressError: one is; the error shows how to write it.
    """
    for part in address:
        several = part if isinstance(part, (list, tuple)) else (part,)
        for one in several:
            if isinstance(one, (Neuron, Head)) and one.tower != tower:
                kind, which = type(one).__name__, one.unit if isinstance(one, Neuron) else one.head
                raise AddressError(
                    f"{one} is in the tower {one.tower!r}, and site {site!r} in {tower!r}: write"
                    f" {kind}({one.layer}, {which}, {tower!r}), or a site of {one.tower!r}."
                )


def check_expert(address: Sequence[Any], axes: Sequence[str], site: str) -> None:
    """Refuse neurons without their expert at a site that has one unit of that number in each.

    Raises:
        AddressError: one is; the error shows how to write it.
    """
    for part in address if "expert" in axes else ():
        for one in part if isinstance(part, (list, tuple)) else (part,):
            if isinstance(one, Neuron) and one.expert is None:
                raise AddressError(
                    f"{one} names no expert, and at {site!r} every expert has a unit {one.unit}:"
                    f" write Neuron({one.layer}, {one.unit}, expert=0), or layer= and unit=."
                )


def in_pairs(several: Any) -> dict[str, Any]:
    """The address of several Neurons or Heads, each in its own layer (and its own expert).

    Raises:
        AddressError: they are something else, or experts' units and others.
    """
    parts = list(several)
    for kind, index in ((Neuron, "unit"), (Head, "head")):
        if parts and all(isinstance(part, kind) and part.layer >= 0 for part in parts):
            pairs = tuple((part.layer, getattr(part, index)) for part in parts)
            experts = [getattr(part, "expert", None) for part in parts]
            if experts.count(None) == len(parts):
                return {"pairs": pairs}
            if None not in experts:
                of = tuple((part.layer, at) for part, at in zip(parts, experts, strict=True))
                return {"pairs": pairs, "experts": of}
    raise AddressError(
        f"{parts[:3]!r} is no list of Neurons or Heads in layers from 0 on: name the axis of other"
        " labels, as in pos=[...]."
    )


def plain(wanted: Any, axis: str) -> Any:
    """An address as plain Python numbers and lists, also from NumPy or torch values.

    Raises:
        AddressError: it is empty, or a number that is no index (True, 0.5).
    """
    if type(wanted) is int or isinstance(wanted, _Mask):  # thousands of units in one edit
        return wanted
    if isinstance(wanted, slice):
        ends = (_end(wanted.start, axis), _end(wanted.stop, axis), _end(wanted.step, axis))
        if ends[2] == 0:
            raise AddressError(f"{axis}={wanted} has a step of 0: write at least 1.")
        return slice(*ends)
    if hasattr(wanted, "ndim") and hasattr(wanted, "tolist"):  # an array, a tensor, or one number
        if wanted.ndim == 1 and "bool" in str(wanted.dtype):
            return _Mask(wanted.tolist())
        if wanted.ndim > 1:
            raise AddressError(f"{axis}={shown(wanted)} has {wanted.ndim} axes: write a list.")
        wanted = wanted.tolist()
    if isinstance(wanted, bool):
        raise AddressError(f"{axis}={wanted} is no address: write a number, a label or a list.")
    if isinstance(wanted, (list, set, frozenset, range)) or _is_plain_tuple(wanted):
        if not wanted:
            raise AddressError(
                f"{axis}={shown(wanted)} names nothing: name at least one, or leave {axis}= out for"
                " all."
            )
        if isinstance(wanted, range):
            return wanted
        parts = [plain(part, axis) for part in wanted]
        return tuple(parts) if isinstance(wanted, tuple) else parts
    return wanted


class _Mask(list[bool]):
    """A mask over all labels, one True or False for each."""


def _is_plain_tuple(wanted: Any) -> bool:
    return type(wanted) is tuple


def _end(end: Any, axis: str) -> int | None:
    try:
        return None if end is None else operator.index(end)
    except TypeError:
        raise AddressError(
            f"A slice of {axis} goes from one number to another, and {shown(end)} is none: write"
            " numbers, or a list of labels."
        ) from None


def find(labels: Sequence[Any], wanted: Any, axis: str) -> int | list[int]:
    """The index of one label, or the indices of several: a list, a slice, a type, a mask.

    Integers are labels where the labels are integers (layer, unit) and indices otherwise (pos);
    negative ones count from the end. A string selects the label that prints as it, as "(5, 2)" or "
    dog". Among patches the pair (5, 2) is the patch that prints as it. Positions are those of the
    prompt: padding beside it is not counted and never found.

    Raises:
        AddressError: no label matches.
    """
    wanted = plain(wanted, axis)
    before, end = _inside(labels)
    if (before, end) != (0, len(labels)):
        found = find(labels[before:end], wanted, axis)
        return [i + before for i in found] if isinstance(found, list) else found + before
    hits = _find(labels, wanted, axis)
    if hits == []:
        raise AddressError(f"{axis}={shown(wanted)} names nothing: {_there(labels, axis)}")
    return hits


def _find(labels: Sequence[Any], wanted: Any, axis: str) -> int | list[int]:
    size = len(labels)
    if isinstance(wanted, slice):
        return list(range(size))[wanted]
    if isinstance(wanted, _Mask):
        if len(wanted) != size:
            raise AddressError(
                f"A mask of {len(wanted)} doesn't fit {axis}: {_there(labels, axis)}"
            )
        return [i for i, meant in enumerate(wanted) if meant]
    if isinstance(wanted, type):
        hits = [i for i, label in enumerate(labels) if isinstance(label, wanted)]
        if not hits:
            raise AddressError(f"No {axis} here is a {wanted.__name__}: {_there(labels, axis)}")
        return hits
    if _is_plain_tuple(wanted) and wanted not in labels:
        wanted = _patch_or_list(wanted, axis)
    if isinstance(wanted, (list, range)):
        found = [_find(labels, part, axis) for part in wanted]
        return [i for part in found for i in (part if isinstance(part, list) else [part])]
    if isinstance(labels, range) and isinstance(wanted, int) and wanted in labels:
        return labels.index(wanted)  # thousands of units are looked up in one edit
    by_label = isinstance(labels, range) or (size > 0 and isinstance(labels[0], int))
    if isinstance(wanted, int) and not (by_label and wanted >= 0):
        if not -size <= wanted < size:
            raise AddressError(f"There is no {axis} {wanted}: {_there(labels, axis)}")
        return wanted % size
    if isinstance(wanted, float) and by_label:
        raise AddressError(f"{axis}={wanted} is no whole number: {_there(labels, axis)}")
    hits = [i for i, label in enumerate(labels) if label == wanted or _prints(label, wanted)]
    if not hits:
        named = wanted if isinstance(wanted, int) else repr(str(wanted))
        raise AddressError(f"There is no {axis} {named}: {_there(labels, axis)}")
    return hits[0] if len(hits) == 1 else hits


def _patch_or_list(wanted: tuple[Any, ...], axis: str) -> Any:
    """A pair of numbers on an axis of positions as the patch (row, col); other tuples as lists.

    Raises:
        AddressError: numbers of positions in a tuple, which could be either.
    """
    numbers = all(isinstance(part, int) for part in wanted)
    if axis not in POSITIONS or not numbers:
        return list(wanted)
    if len(wanted) == 2:
        return Patch(*wanted)
    raise AddressError(
        f"{axis}={wanted} could be a patch or several positions: write Patch(row, col, image), or a"
        f" list, {axis}={list(wanted)}."
    )


def _prints(label: Any, wanted: Any) -> bool:
    return isinstance(wanted, str) and not isinstance(label, int) and str(label) == wanted


def _inside(labels: Sequence[Any]) -> tuple[int, int]:
    """Where the labels between padding begin and end: on the left of a prompt, after a text."""
    size = len(labels)
    if isinstance(labels, range) or not labels:
        return 0, size
    ends = (labels[0], labels[-1])
    if not any(isinstance(label, Padding) for label in ends):
        return 0, size
    real = [i for i, label in enumerate(labels) if not isinstance(label, Padding)]
    return (real[0], real[-1] + 1) if real else (0, size)


def places(labels: Sequence[Any], wanted: Any, axis: str) -> list[int]:
    """The indices that `find` returns, always as a list; for None all but padding."""
    if wanted is None:
        return list(range(*_inside(labels)))
    found = find(labels, wanted, axis)
    return found if isinstance(found, list) else [found]


def reaches_the_end(wanted: Any) -> bool:
    """Whether an address of positions counts from the end and includes the last one.

    -1 and slices without an end do: in a generation they apply to every new token, which is the
    last position when it is read.
    """
    if isinstance(wanted, (list, tuple, range)):
        return any(reaches_the_end(part) for part in wanted)
    if isinstance(wanted, slice):
        return wanted.stop is None and (wanted.step or 1) == 1
    return type(wanted) is int and wanted == -1


def _there(labels: Sequence[Any], axis: str) -> str:
    if not labels:
        return f"what is asked has no {axis} at all, so ask a model or a site that has some."
    numbers = isinstance(labels, range) or all(isinstance(x, int) for x in labels)
    if numbers and len(labels) == labels[-1] - labels[0] + 1:
        return f"there are {len(labels)}, {labels[0]} to {labels[-1]}."
    if numbers:
        return f"there are {len(labels)}: {', '.join(map(str, labels[-8:]))}."
    shown = ", ".join(repr(str(x)) for x in list(labels)[-8:])
    return f"there are {len(labels)}, the last being {shown}."
