"""Addresses: one hidden unit of an MLP, one attention head, and how labels on axes are found.

A `Neuron` is a label *and* an address: `scores.sel(Neuron(3, 17))` reads it, `Edit("neurons", 0.0,
Neuron(3, 17))` silences it. Layers and units count from 0, as in TransformerLens. In general an
address is `axis = labels`, read by `read_address` and looked up by `find`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmlens.errors import AddressError
from mmlens.prompt import Patch, Token


@dataclass(frozen=True, order=True)
class Neuron:
    """Hidden unit `unit` of the MLP in layer `layer`, printed `L14.2019`."""

    layer: int
    unit: int

    def __str__(self) -> str:
        return f"L{self.layer}.{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Neuron:
        """`"L14.2019"` (or the paper's `"L14.u2019"`) as a Neuron."""
        match = re.fullmatch(r"L(\d+)\.u?(\d+)", text.strip())
        if match is None:
            raise AddressError(f"{text!r} is not a neuron: write it as L14.2019 (layer.unit).")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, order=True)
class Head:
    """Attention head `head` of layer `layer`, printed `L3H5`: one of those that have queries.

    With grouped-query attention several heads read the same keys and values. At "k" and "v" a Head
    is the one that it reads, whose whole group hears of it; the axis `head` there counts keys and
    values, and a plain `head=1` is a place on that axis.
    """

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


def read_address(
    address: Sequence[Any], by_axis: Mapping[str, Any], readers: int = 1
) -> dict[str, Any]:
    """`axis -> wanted` from positional labels (their type knows the axis) and keywords.

    Args:
        readers: how many Heads share one place of the axis `head` (`sites.readers`).
    """
    wanted: dict[str, Any] = {}
    for part in address:
        if isinstance(part, Neuron):
            found = {"layer": part.layer, "unit": part.unit}
        elif isinstance(part, Head):
            found = {"layer": part.layer, "head": part.head // readers}
        elif isinstance(part, (Patch, Token)) or part in (Patch, Token):
            found = {"pos": part}
        else:
            raise AddressError(
                f"{part!r} is no address by itself: name its axis, as in layer=3 or pos=Patch."
            )
        wanted.update(found)
    wanted.update({axis: want for axis, want in by_axis.items() if want is not None})
    return wanted


def find(labels: Sequence[Any], wanted: Any, axis: str) -> int | list[int]:
    """The index of one label, or the indices of several: a list, a slice or a type.

    Integers are labels where the labels are integers (layer, unit) and places elsewhere (pos);
    negative ones count from the end.

    Raises:
        AddressError: nothing there.
    """
    size = len(labels)
    if isinstance(wanted, slice):
        return list(range(size))[wanted]
    if isinstance(wanted, type):
        hits = [i for i, label in enumerate(labels) if isinstance(label, wanted)]
        if not hits:
            raise AddressError(f"No {axis} here is a {wanted.__name__}: {_there(labels)}")
        return hits
    if isinstance(wanted, (list, tuple, set, range)):
        found = [find(labels, part, axis) for part in wanted]
        return [i for part in found for i in (part if isinstance(part, list) else [part])]
    if isinstance(labels, range) and isinstance(wanted, int) and wanted in labels:
        return labels.index(wanted)  # thousands of units are looked up in one edit
    by_label = isinstance(labels, range) or (size > 0 and isinstance(labels[0], int))
    if isinstance(wanted, int) and not (by_label and wanted >= 0):
        if not -size <= wanted < size:
            raise AddressError(f"There is no {axis} {wanted}: {_there(labels)}")
        return wanted % size
    hits = [
        i
        for i, label in enumerate(labels)
        if label == wanted or (isinstance(label, Token) and label.text == wanted)
    ]
    if not hits:
        named = wanted if isinstance(wanted, int) else repr(str(wanted))
        raise AddressError(f"There is no {axis} {named}: {_there(labels)}")
    return hits[0] if len(hits) == 1 else hits


def places(labels: Sequence[Any], wanted: Any, axis: str) -> list[int]:
    """What `find` finds, always as a list; everything when nothing is asked for (None)."""
    if wanted is None:
        return list(range(len(labels)))
    found = find(labels, wanted, axis)
    return found if isinstance(found, list) else [found]


def _there(labels: Sequence[Any]) -> str:
    if isinstance(labels, range) or (labels and all(isinstance(x, int) for x in labels)):
        return (
            f"there are {len(labels)}, {labels[0]} to {labels[-1]}." if labels else "there is none."
        )
    shown = ", ".join(repr(str(x)) for x in list(labels)[-8:])
    return f"there are {len(labels)}, the last being {shown}."
