"""A tensor with named axes and labelled indices: the one dense result type.

    scores = attribute(model, prompt, of=" dog")      # Scores(layer 8, pos 103, unit 1024)
    scores.sel(layer=3, pos=Patch)                    # a type selects the labels of that type
    scores.sel(Neuron(3, 17))                         # an address: its fields are axes
    scores.sum("unit").to_frame()

One label drops its axis; a list, a slice or a type keeps it (`mmlens.values.addresses.find`).
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.values.addresses import find, read_address
from mmlens.values.arguments import count, instance, several, shown, text
from mmlens.values.errors import AddressError, ArgumentError, CheckpointError, nearest
from mmlens.values.optional_packages import package
from mmlens.values.packed_labels import Labels, pack_labels, unpack_labels
from mmlens.values.score_protocols import Protocols
from mmlens.values.score_reductions import Reductions
from mmlens.values.score_words import other_word
from mmlens.values.sites import SHARED
from mmlens.values.unit_lists import plain_address
from mmlens.values.unit_places import at_units, by_unit
from mmlens.values.whole_files import replacing, spelled

if TYPE_CHECKING:
    import pandas as pd
    import torch


@dataclass(frozen=True, eq=False)
class Scores(Protocols, Reductions):
    """Named axes, labelled indices.

    Attributes:
        values: the numbers, one tensor axis per name in `axes`.
        axes: axis names, e.g. `("layer", "pos", "unit")`.
        labels: per axis a tuple of labels, or None for 0, 1, 2, ...
        about: what the numbers are (method, options, target, model), kept when saved.
    """

    values: torch.Tensor
    axes: tuple[str, ...]
    labels: Mapping[str, Labels] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        import torch

        instance(self.values, "values", torch.Tensor, "a tensor")
        instance(self.labels, "labels", Mapping, "a mapping from axis names to labels")
        instance(self.about, "about", Mapping, "a mapping")
        for axis in several(self.axes, "axes", least=0):
            text(axis, "axes")
        if self.values.ndim != len(self.axes) or len(set(self.axes)) != len(self.axes):
            raise AddressError(
                f"A tensor of shape {tuple(self.values.shape)} needs {self.values.ndim} different"
                f" axis names, not {self.axes}."
            )
        for axis, size in zip(self.axes, self.values.shape, strict=True):
            known = self.labels.get(axis)
            if known is not None and (isinstance(known, str) or not hasattr(known, "__len__")):
                raise AddressError(f"labels={{{axis!r}: {shown(known)}}}: give a tuple of labels.")
            if known is not None and len(known) != size:
                raise AddressError(f"Axis {axis!r} has {size} entries but {len(known)} labels.")

    # -- reading ------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, in order."""
        return tuple(self.values.shape)

    def of(self, axis: str) -> Sequence[Any]:
        """The labels of one axis."""
        known = self.labels.get(axis)
        return known if known is not None else range(self.values.shape[self._dim(axis)])

    def sel(self, *address: Any, **by_axis: Any) -> Scores:
        """The part at an address; a single label drops its axis.

        Args:
            address: labels or types whose axis is known (`Neuron`, `Head`, `Patch`, `Token`).
                Several Neurons (or Heads), a list or a table of them, give one axis, `neuron`.
            by_axis: `axis=` a label, an integer, a slice, a type, or a list of these.

        Raises:
            AddressError: no such axis or label; the error names those there are.
        """
        out = self
        readers = int(self.about.get(SHARED, 1))
        parts, by_axis = by_unit(plain_address(address), by_axis, self.axes)
        single = [part for part in parts if not isinstance(part, list)]
        for axis, wanted in read_address(single, by_axis, readers).items():
            out = out._pick(axis, find(out.of(axis), wanted, axis))
        for units in (part for part in parts if isinstance(part, list)):
            out = Scores(*at_units(out, units, readers), out.about)
        return out

    def __getitem__(self, at: Any) -> Scores:
        """By number instead of label, as in NumPy: `scores[0]`, `scores[:, -1]`, `scores[..., :5]`.

        Raises:
            AddressError: no number there, or what is no number or slice; labels go to `sel`.
        """
        given = at if type(at) is tuple else (at,)
        if gaps := [place for place, one in enumerate(given) if one is Ellipsis]:
            gap = gaps[0]
            every = (slice(None),) * (len(self.axes) - len(given) + 1)
            given = (*given[:gap], *every, *given[gap + 1 :])
        if len(given) > len(self.axes):
            raise AddressError(f"{self!r} has {len(self.axes)} axes, not {len(given)}.")
        out = self
        for axis, one in zip(self.axes, given, strict=False):
            size = len(self.of(axis))
            if isinstance(one, slice):
                out = out if one == slice(None) else out._pick(axis, list(range(size)[one]))
            else:
                out = out._pick(axis, _numbered(one, size, axis))
        return out

    def __len__(self) -> int:
        """The size of the first axis.

        Raises:
            ArgumentError: one value is left, which has no axis.
        """
        if not self.axes:
            raise ArgumentError(f"{self!r} is one value, without an axis: write float(scores).")
        return self.shape[0]

    def __iter__(self) -> Iterator[Scores]:
        """Along the first axis.

        Raises:
            ArgumentError: one value is left, which has no axis.
        """
        return (self[at] for at in range(len(self)))

    def _pick(self, axis: str, index: int | list[int]) -> Scores:
        dim = self._dim(axis)
        if isinstance(index, int):
            rest = tuple(a for a in self.axes if a != axis)
            kept = {a: self.labels.get(a) for a in rest}
            about = {**self.about, axis: str(self.of(axis)[index])}
            return Scores(self.values.select(dim, index), rest, kept, about)
        import torch

        at = torch.tensor(index, dtype=torch.long, device=self.values.device)
        names = tuple(self.of(axis)[i] for i in index)
        return Scores(
            self.values.index_select(dim, at), self.axes, {**self.labels, axis: names}, self.about
        )

    def _dim(self, axis: str) -> int:
        if axis not in self.axes:
            raise AddressError(f"There is no axis {axis!r} here: {nearest(axis, self.axes)}")
        return self.axes.index(axis)

    def with_values(self, values: torch.Tensor, **told: Any) -> Scores:
        """Other values at the same places; `told` is added to what is known about them."""
        return Scores(values, self.axes, self.labels, {**self.about, **told})

    # -- leaving ------------------------------------------------------------------------------

    def to_frame(self, k: int | None = None, name: str = "score") -> pd.DataFrame:
        """One row per value: the label on each axis, then `name`; with `k`, the largest first.

        Raises:
            ArgumentError: `k` is no count.
        """
        import pandas as pd
        import torch

        flat = self.values.detach().float().flatten().cpu()
        if k is None:
            value, at = flat, torch.arange(flat.numel())
        else:
            value, at = flat.topk(min(count(k, "k"), flat.numel()))
        places = torch.unravel_index(at, self.shape) if self.axes else ()
        columns = {
            a: [self.of(a)[i] for i in p.tolist()] for a, p in zip(self.axes, places, strict=True)
        }
        return pd.DataFrame({**columns, name: value.numpy()})

    def to_xarray(self) -> Any:
        """An `xarray.DataArray` with the same axes and labels; `about` is its `attrs`.

        Raises:
            CapabilityError: xarray is not installed.
        """
        import numpy as np

        xarray = package("xarray", "xarray", "Scores.to_xarray")
        named = {axis: self.labels.get(axis) for axis in self.axes}
        held = {a: np.fromiter(n, object, len(n)) for a, n in named.items() if n is not None}
        return xarray.DataArray(self.numpy(), held, self.axes, attrs=dict(self.about))

    def numpy(self) -> Any:
        """The values as a NumPy array."""
        return self.values.detach().float().cpu().numpy()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What the same is called here, for names of pandas, xarray, torch and NumPy."""
            raise other_word(name)

    def save(self, path: str | Path) -> Path:
        """Write values (safetensors) with axes, labels and provenance in the same file."""
        from safetensors.torch import save_file

        meta = {
            "axes": list(self.axes),
            "labels": {a: pack_labels(v) for a, v in self.labels.items() if a in self.axes},
        }
        text = {"scores": json.dumps(meta), "about": json.dumps(dict(self.about), default=str)}
        with replacing(path) as new:
            new.touch()  # so that errors give the system's reason, not that of safetensors
            save_file({"values": self.values.detach().contiguous().cpu()}, new, metadata=text)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """The Scores that `save` wrote.

        Raises:
            CheckpointError: the file is missing, or not one that `save` wrote.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with spelled(path) as real, safe_open(real, framework="pt") as file:
                text = file.metadata() or {}
                meta, about = json.loads(text["scores"]), json.loads(text["about"])
                values = file.get_tensor("values")
            labels = {a: unpack_labels(v) for a, v in meta["labels"].items()}
            return cls(values, tuple(meta["axes"]), labels, about)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{str(path)!r} does not hold saved Scores ({error}).") from error

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The notebook display: the fitting view if `mmlens.view` is imported, otherwise text."""
        return _shown[0](self) if _shown else {"text/plain": repr(self)}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{a} {n}" for a, n in zip(self.axes, self.shape, strict=True))
        what = str(self.about.get("method", ""))
        return f"Scores({sizes or self.values.item():})" + (f" of {what}" if what else "")


def _numbered(at: Any, size: int, axis: str) -> int:
    """A place on an axis, by its number.

    Raises:
        AddressError: it is a label, a list or Scores, or there is no such number.
    """
    if isinstance(at, Scores):
        raise AddressError(
            f"{at!r} chooses no places: write scores * (scores > 0) for 0 at the others, or"
            " scores.to_frame().query('score > 0') for a table of these alone."
        )
    try:
        place = operator.index(at) if not isinstance(at, bool) else size
    except (TypeError, ValueError):  # the latter from a tensor of several numbers
        place = size
    if not -size <= place < size:
        raise AddressError(
            f"[{shown(at)}] is no number from {-size} to {size - 1} on axis {axis!r}:"
            f" labels are chosen by .sel({axis}=...)."
        )
    return place % size


_shown: list[Callable[[Scores], dict[str, Any]]] = []


def shown_by(how: Callable[[Scores], dict[str, Any]]) -> None:
    """Set the notebook display of Scores; called by the views, which this module cannot import."""
    _shown[:] = [how]
