"""What all running statistics share: cells, adding, merging, and a file to go on from.

A subclass says what it keeps per cell (`_new`), how observations change that (`_take`), and how two
become one (`_join`), always for all cells at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from mmlens.values.arguments import several, text
from mmlens.values.errors import AddressError, CheckpointError, NumericsError
from mmlens.values.packed_labels import Labels, pack_labels, unpack_labels
from mmlens.values.scores import Scores
from mmlens.values.whole_files import replacing, spelled

T = TypeVar("T", bound="Tally")
BLOCK = 1 << 22
"""How many values are worked on at once, so that float64 copies stay small."""


class Tally:
    """What all running statistics share: cells, `add`, `merge`, and a file to go on from.

    Attributes:
        keep: the axes whose indices are the cells.
        sizes: of these axes, None before anything was added.
        count: observations per cell.
    """

    kinds: ClassVar[dict[str, type[Tally]]] = {}

    def __init__(self, keep: Sequence[str] = ("layer", "unit"), **settings: Any) -> None:
        axes = several(keep, "keep", least=0, error=AddressError)
        self.keep = tuple(text(axis, "keep", error=AddressError) for axis in axes)
        self.settings = settings
        self.sizes: tuple[int, ...] | None = None
        self.labels: dict[str, Labels] = {}
        self.places: tuple[Any, ...] | None = None
        self.count = 0
        self._kept: dict[str, Tensor] = {}

    def __init_subclass__(cls) -> None:
        Tally.kinds[cls.__name__] = cls

    def empty(self: T) -> T:
        """One with the same settings that has seen nothing."""
        return type(self)(keep=self.keep, **self.settings)

    def add(self, scores: Scores, sample: int = 0) -> None:
        """Take in the scores of one sample; axes that are not kept are observations.

        Args:
            scores: with the axes `keep`, whose labels are the same every time.
            sample: its place in the data, which `Top` remembers.

        Raises:
            AddressError: an axis is missing, or its labels are others than before.
            NumericsError: a value is NaN or infinite.
        """
        if missing := [axis for axis in self.keep if axis not in scores.axes]:
            raise AddressError(f"A tally of {self.keep} needs the axis {missing[0]!r}: {scores!r}.")
        rest = [axis for axis in scores.axes if axis not in self.keep]
        order = [scores.axes.index(axis) for axis in (*self.keep, *rest)]
        values = scores.values.detach().permute(order)
        sizes = tuple(values.shape[: len(self.keep)])
        # a finite sum has finite terms, and is much quicker; it may also overflow
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            raise NumericsError(f"{scores!r} of sample {sample} holds a NaN or infinite value.")
        places = tuple(scores.of(rest[0])) if len(rest) == 1 else None
        self._same_cells(sizes, {axis: scores.labels.get(axis) for axis in self.keep}, places)
        rows = values.reshape(math.prod(sizes), -1)
        if not rows.shape[1]:
            return
        step = max(1, BLOCK // rows.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            self._take({k: v[part] for k, v in self._kept.items()}, rows[part], sample)
        self.count += rows.shape[1]

    def merge(self: T, other: Tally) -> T:
        """Take in what another tally of the same settings saw of other samples; returns self.

        Raises:
            AddressError: it is of another kind, or its cells are others.
        """
        mine = (type(self), self.keep, self.settings)
        if (type(other), other.keep, other.settings) != mine:
            raise AddressError(f"{other!r} cannot be merged into {self!r}: they are set otherwise.")
        if other.sizes is not None:
            self._same_cells(other.sizes, other.labels, other.places)
            self._join(self._kept, other)
            self.count += other.count
        return self

    def _same_cells(
        self, sizes: tuple[int, ...], labels: Mapping[str, Labels], places: Any
    ) -> None:
        if self.sizes is None:
            self.sizes, self.labels, self.places = sizes, dict(labels), places
            self._kept = self._new(math.prod(sizes))
        elif (self.sizes, self.labels) != (sizes, dict(labels)):
            raise AddressError(
                f"{self!r} cannot take values of {dict(zip(self.keep, sizes, strict=True))}: the"
                " kept axes must be the same for every sample, so narrow them or keep others."
            )
        elif self.places != places:
            self.places = None  # the places of these samples have no common names

    def _new(self, cells: int) -> dict[str, Tensor]:
        """The tensors [cell, ...] of a tally that has seen nothing."""
        raise NotImplementedError

    def _take(self, kept: dict[str, Tensor], rows: Tensor, sample: int) -> None:
        """Change `kept` by the observations [cell, n] of one sample."""
        raise NotImplementedError

    def _join(self, kept: dict[str, Tensor], other: Any) -> None:
        """Change `kept` by what another saw; both counts are still those before."""
        raise NotImplementedError

    def _scores(self, values: Tensor, axis: str | None = None) -> Scores:
        if self.sizes is None:
            raise AddressError(f"{self!r} has seen nothing yet: add scores first.")
        axes = (*self.keep, axis) if axis else self.keep
        shape = (*self.sizes, -1) if axis else self.sizes
        return Scores(values.reshape(shape), axes, self.labels, {"method": type(self).__name__})

    # -- on disk ------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything as tensors and plain JSON; `Tally.of_state` reads it."""
        meta = {
            "kind": type(self).__name__, "keep": self.keep, "settings": self.settings,
            "sizes": self.sizes, "count": self.count, "places": pack_labels(self.places),
            "labels": {axis: pack_labels(labels) for axis, labels in self.labels.items()},
        }  # fmt: skip
        return dict(self._kept), meta

    @staticmethod
    def of_state(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Tally:
        """The tally whose `state` this is."""
        out = Tally.kinds[meta["kind"]](keep=meta["keep"], **meta["settings"])
        out.sizes = None if meta["sizes"] is None else tuple(meta["sizes"])
        out.labels = {axis: unpack_labels(labels) for axis, labels in meta["labels"].items()}
        out.count, out.places = meta["count"], unpack_labels(meta["places"])
        out._kept = dict(tensors)
        with torch.device("meta"):
            fresh = {} if out.sizes is None else out._new(math.prod(out.sizes))
        shapes = [{key: tuple(v.shape) for key, v in kept.items()} for kept in (fresh, out._kept)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"its tensors are {shapes[1]} and should be {shapes[0]}")
        return out

    def save(self, path: str | Path) -> Path:
        """Write it as one safetensors file with JSON in its header."""
        from safetensors.torch import save_file

        tensors, meta = self.state()
        with replacing(path) as new:
            save_file(tensors, new, metadata={"tally": json.dumps(meta)})
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> Tally:
        """What `save` wrote.

        Raises:
            CheckpointError: the file is missing, or not one that `save` wrote.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with spelled(path) as real, safe_open(real, framework="pt") as file:
                meta = json.loads((file.metadata() or {})["tally"])
                return Tally.of_state({key: file.get_tensor(key) for key in file.keys()}, meta)  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{str(path)!r} does not hold a tally ({error}).") from error

    def __repr__(self) -> str:
        sizes = self.sizes or ("?",) * len(self.keep)
        cells = ", ".join(f"{a} {n}" for a, n in zip(self.keep, sizes, strict=True))
        return f"{type(self).__name__}({cells}; {self.count} seen)"
