"""The studies of the shoot-out, and how many pictures each is given by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from mmlens.datasets.sample import Samples


@dataclass(frozen=True)
class StudyOfMethods:
    """One study, a package of `mmlens.papers` with a function `reproduce`.

    Attributes:
        pictures: how many of the given data it takes.
        options: of those that hang on how many there are, by the number.
        own_data: whether it goes on with pictures of its own (of the bundled world) where the
            caller gives none; the others are given the bundled world's held-out pictures.
    """

    name: str
    pictures: int
    options: Callable[[int], dict[str, Any]] = field(default=lambda n: {}, repr=False)
    own_data: bool = False

    def run(self, model: Any, data: Samples | None, out: Any, **how: Any) -> Any:
        """Its report."""
        from mmlens.datasets.spec import dataset

        study = import_module(f"mmlens.papers.{self.name}")
        if data is None and self.own_data:
            return study.reproduce(model, out=out, **how)
        samples = dataset(f"pictos:held_out:{self.pictures}") if data is None else data
        few = samples if len(samples) <= self.pictures else samples[: self.pictures]
        return study.reproduce(model, few, out, **{**self.options(len(few)), **how})


def _some_kept(n: int) -> dict[str, Any]:
    return {"pool": min(30, n // 8)}


def _many_in_a_pool(n: int) -> dict[str, Any]:
    return {"pool": min(120, 2 * n // 3)}


def _most_in_a_pool(n: int) -> dict[str, Any]:
    return {"pool": max(n - 48, n // 2)}


def _most_learned(n: int) -> dict[str, Any]:
    return {"train": 3 * n // 4}


STUDIES = {
    one.name: one
    for one in (
        StudyOfMethods("maps", 28),
        StudyOfMethods("lenses", 504, _most_in_a_pool, own_data=True),
        StudyOfMethods("neo", 60),
        StudyOfMethods("neurons", 180, _many_in_a_pool),
        StudyOfMethods("circuits", 32),
        StudyOfMethods("dictionaries", 1000, own_data=True),
        StudyOfMethods("concepts", 3000),
        StudyOfMethods("editing", 240, _some_kept),
        StudyOfMethods("labels", 60, own_data=True),
        StudyOfMethods("alignment", 60),
        StudyOfMethods("projection", 1000, own_data=True),
        StudyOfMethods("frozen_block", 800, _most_learned, own_data=True),
        StudyOfMethods("hallucination", 64, own_data=True),
    )
}
"""By name, in the order of the table."""
