"""Which pictures of the data each experiment is about.

The first ones, where any will do. E3 asks for the concepts that are shown (once, with a mask) in
most pictures, E4 for the classes that most pictures show alone; both look through the pictures in
order, so the choice depends on the data and on nothing that was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mmlens.datasets.sample import Samples
from mmlens.papers.mmn.questions.classes import class_of
from mmlens.papers.mmn.questions.regions import single_things
from mmlens.papers.mmn.report.plan import Plan


@dataclass(frozen=True)
class Chosen:
    """Places in the data.

    Attributes:
        concepts: E3, by concept.
        first, second: E4, by class: pictures to choose units on, and others to measure them on.
        known: everything that is named in the pictures looked through.
    """

    concepts: dict[str, list[int]]
    first: dict[str, list[int]]
    second: dict[str, list[int]]
    known: frozenset[str]


def choose(samples: Samples, plan: Plan) -> Chosen:
    """The pictures of E3 and E4, from the first `plan.scan` of the data."""
    masked: list[Collection[str]] = []
    alone: list[Collection[str]] = []
    known: set[str] = set()
    for place in range(min(plan.scan, len(samples))):
        sample = samples[place]
        only = class_of(sample)
        masked.append(single_things(sample))
        alone.append(() if only is None else (only,))
        known.update(sample.names)
    concepts = most_shown(masked, plan.concepts, plan.of_concept)
    pairs = most_shown(alone, plan.classes, plan.choose + plan.measure, least=2)
    part = plan.choose / (plan.choose + plan.measure)
    cut = {name: max(1, int(len(places) * part)) for name, places in pairs.items()}
    return Chosen(
        concepts,
        {name: places[: cut[name]] for name, places in pairs.items()},
        {name: places[cut[name] :] for name, places in pairs.items()},
        frozenset(known),
    )


def most_shown(
    shown: Sequence[Collection[str]], n: int, each: int, least: int = 1
) -> dict[str, list[int]]:
    """The `n` names that occur in most pictures, with the first `each` places of every one.

    Args:
        shown: the names in each picture.
        least: names in fewer pictures are left out. Equal counts are ordered by name.
    """
    places: dict[str, list[int]] = {}
    for place, names in enumerate(shown):
        for name in names:
            places.setdefault(name, []).append(place)
    enough = [name for name in places if len(places[name]) >= least]
    best = sorted(enough, key=lambda name: (-len(places[name]), name))[:n]
    return {name: places[name][:each] for name in sorted(best)}


def together(places: Collection[Sequence[int]]) -> list[int]:
    """Every place once, in order."""
    return sorted({place for some in places for place in some})
