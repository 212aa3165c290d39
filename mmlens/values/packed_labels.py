"""Labels of axes as JSON, for the files that keep them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mmlens.values.errors import AddressError, CheckpointError
from mmlens.values.labels import Head, Marker, Neuron, Padding, Patch, Token

Labels = tuple[Any, ...] | None
"""One label per index; None stands for 0, 1, 2, ... (units and dimensions)."""

LABELS = {kind.__name__: kind for kind in (Patch, Marker, Token, Padding, Neuron, Head)}


def pack_labels(labels: Labels) -> list[Any] | None:
    """Labels of an axis as JSON: a plain one as it is, another as [kind, field, ...].

    Raises:
        AddressError: a label of a kind that could not be read back.
    """
    return None if labels is None else [_pack(label) for label in labels]


def _pack(label: Any) -> Any:
    if label is None or isinstance(label, (str, bool, int, float)):
        return label
    if type(label) is tuple:
        return ["tuple", *map(_pack, label)]
    if LABELS.get(type(label).__name__) is type(label):
        return [type(label).__name__, *vars(label).values()]
    if hasattr(label, "item") and getattr(label, "ndim", 1) == 0:  # a number of NumPy or torch
        return label.item()
    raise AddressError(
        f"The label {label!r} can't be saved: labels are texts, numbers, tuples of these, or"
        f" {', '.join(LABELS)}."
    )


def unpack_labels(labels: list[Any] | None) -> Labels:
    """The labels that `pack_labels` packed."""
    return None if labels is None else tuple(_unpack(label) for label in labels)


def _unpack(label: Any) -> Any:
    if not isinstance(label, list):
        return label
    kind, *values = label
    if kind == "tuple":
        return tuple(map(_unpack, values))
    names = [one.name for one in fields(LABELS[kind])] if kind in LABELS else []
    names += [f"field {n}" for n in range(len(names), len(values))]
    return restored(kind, dict(zip(names, values, strict=False)))


def restored(kind: str, values: Mapping[str, Any]) -> Any:
    """A label of this kind; a field that a file does not have, because it is older, is its default.

    Raises:
        CheckpointError: a kind or a field that only a newer mmlens knows.
    """
    given = {name: value for name, value in values.items() if value is not None}
    known = LABELS.get(kind)
    if known is None or not given.keys() <= {one.name for one in fields(known)}:
        raise CheckpointError(
            f"A label {kind}({', '.join(f'{n}={v!r}' for n, v in given.items())}) is not known to"
            " this mmlens: a newer one wrote the file, so read it with that."
        )
    return known(**given)
