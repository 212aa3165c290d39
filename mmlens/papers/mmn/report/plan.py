"""How many pictures each question is asked about, and how the paper is read where it is open.

`FULL` and `QUICK` are sized for the bundled model on two cores: under 30 and under 3 minutes. The
numbers of silenced units are shares of all units, those of the paper's 458,752: its 6400 are 0.014.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from mmlens.papers.mmn.questions.ablation import PAPER_KS
from mmlens.papers.mmn.questions.explained import PROMPT, RULES
from mmlens.papers.mmn.questions.rankings import METHODS
from mmlens.papers.mmn.questions.translate import TIMES
from mmlens.values.arguments import count
from mmlens.values.errors import MMLensError, nearest

PAPER_UNITS = 458_752
"""28 layers of 16,384 units: what the paper's numbers of silenced units are shares of."""


class ReproduceError(MMLensError, ValueError):
    """A plan or a reading of the paper that there is not."""


OMITTED = ("faithful", "sensitive", "readings")
"""What may be asked about no picture, which leaves it out: none of it is the paper's."""


def shares(*ks: int) -> tuple[float, ...]:
    """The paper's numbers of units as shares of all its units."""
    return tuple(k / PAPER_UNITS for k in ks)


@dataclass(frozen=True)
class Plan:
    """How many pictures, concepts and classes; what the data cannot give is left out and told.

    Attributes:
        scan: so many pictures of the data are looked through.
        units: of E1 and E6; the paper's 1000 in full. `shuffles`: how often E1's wrong pictures are
            drawn.
        projection: of E2; `vectors` of each (None: all patches).
        concepts: of E3, those shown in most pictures, each with up to `of_concept` pictures.
        classes: of E4, with pictures to `choose` the units on, and others to `measure` them on.
        ablation: of E5, at the shares `ks` of all units, against `randoms` draws of random units.
        sheets: of E7.
        faithful, methods: of the benchmark of attribution methods.
        sensitive: of the table of open choices.
        readings: of the question how units are to be read; lenses for it are made on the `fitted`
            pictures behind them, the Jacobian on the first `jacobian` of these.
    """

    name: str
    scan: int
    units: int
    projection: int
    vectors: int | None
    concepts: int
    of_concept: int
    classes: int
    choose: int
    measure: int
    ablation: int
    ks: tuple[float, ...]
    sheets: int
    faithful: int
    sensitive: int
    methods: tuple[str, ...] = METHODS
    shuffles: int = TIMES
    randoms: int = 1
    readings: int = 40
    fitted: int = 24
    jacobian: int = 4

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.type == "int":
                least = 0 if one.name in OMITTED else 1
                count(getattr(self, one.name), one.name, least=least, error=ReproduceError)


FULL = Plan(
    "full", scan=4000, units=1000, projection=200, vectors=None, concepts=12, of_concept=12,
    classes=10, choose=5, measure=5, ablation=100, ks=shares(*PAPER_KS), sheets=12, faithful=24,
    sensitive=32, readings=100,
)  # fmt: skip
QUICK = Plan(
    "quick", scan=1200, units=16, projection=16, vectors=25, concepts=12, of_concept=2,
    classes=5, choose=2, measure=1, ablation=8, ks=shares(0, 100, 400, 1600, 6400), sheets=4,
    faithful=2, sensitive=3, readings=8, fitted=4, jacobian=1,
)  # fmt: skip


@dataclass(frozen=True)
class OpenChoices:
    """How the paper is read where it is open; the defaults are those that the experiments name.

    Attributes:
        point: units are scored before ("pre") or after ("post") the activation function.
        target: what is explained: the token's "logit", "prob" or "logprob".
        rank_by: units are ranked by "pair" (unit, patch), or by "max" or "sum" over patches.
        gain: whether a unit is decoded with the final norm's gain.
        value: what a silenced unit is: a number, or "mean".
        sinks: units that are huge at the first position are "kept" among the others in E5, or
            silenced "apart".
        where: silenced at "all" positions, those of the "image", or the "last".
        random_from: random units are "others" of the layer, or "any" of it.
        shuffle: random pairs of E1, by "pictures" or by "neurons".
        keep: E1 and E4 take "interpretable" units, or "all".
        noun: how the noun of the caption is found.
        prompt: the words after the picture.
        max_new_tokens: length of a caption at most.
    """

    point: str = "pre"
    target: str = "logit"
    rank_by: str = "pair"
    gain: bool = False
    value: float | int | str = 0.0
    where: str = "all"
    random_from: str = "others"
    sinks: str = "kept"
    shuffle: str = "pictures"
    keep: str = "interpretable"
    noun: str = "auto"
    prompt: str = PROMPT
    max_new_tokens: int = 30

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            given = getattr(self, name)
            if given not in known and not (name == "value" and not isinstance(given, str)):
                raise ReproduceError(f"There is no {name} {given!r}: {nearest(given, known)}.")

    def of(self, *names: str) -> dict[str, Any]:
        """These of the options, as a question takes them."""
        every = asdict(self)
        return {name: every[name] for name in names}

    @property
    def explained(self) -> dict[str, Any]:
        """What every question needs to find the word that it explains."""
        return self.of("prompt", "noun", "max_new_tokens")


CHOICES: dict[str, tuple[str, ...]] = {
    "point": ("pre", "post"),
    "target": ("logit", "prob", "logprob"),
    "rank_by": ("pair", "max", "sum"),
    "value": ("mean",),  # or a number
    "where": ("all", "image", "last"),
    "random_from": ("others", "any"),
    "sinks": ("kept", "apart"),
    "shuffle": ("pictures", "neurons"),
    "keep": ("interpretable", "all"),
    "noun": RULES,
}
