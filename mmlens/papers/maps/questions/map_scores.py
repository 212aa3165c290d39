"""How good is the map of each method: where the thing is known, and where the model is asked?

1. Caption the picture; take the first thing of the picture that the caption names, if it has a mask
   and is annotated once and its name is one token.
2. Every method maps this word, where the model says it; so do a few maps of random numbers.
3. By the mask: "energy" (the share of the map on the thing), "pointing" (whether its peak is).
4. By the model: the word's probability while patches of the picture are covered ("deletion") or
   shown ("insertion") in the map's order, as the mean over the curve (`relevance.covering_curves`).
5. "cost": its computing time over that of a forward pass of the same prompt, both with the time
   in which the picture is read.

The map that PROJECTAWAY's lens makes of a word that is not in the picture is judged by the mask
too: what lies on the thing there is no word's.

Positions: the picture's. Path: the method's own, and for the curves all of the model. A mask and a
model may disagree without either being wrong: a word may be read off a thing's shadow.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.map_measures import covering_curves, in_mask
from mmlens.methods.picture_places import place_in
from mmlens.methods.project_away import lens_map
from mmlens.model.targets import one as read_one
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.maps.map_methods import (
    ABSENT,
    CHANCE,
    LENS,
    METHODS,
    Mapped,
    chosen,
)
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, explain
from mmlens.papers.mmn.questions.regions import MASKLESS, named_mask, single_things
from mmlens.papers.tables import ExperimentError, finished, used
from mmlens.pictos.scene_captions import plural
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import count, several
from mmlens.values.errors import (
    AddressError,
    CapabilityError,
    PromptError,
    SiteError,
    TargetError,
)
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "method", "metric", "value", "why")
CURVES, BY_MASK = ("deletion", "insertion"), ("energy", "pointing")
METRICS = (*BY_MASK, *CURVES, "cost")
RANGES: dict[str, tuple[float, float]] = dict.fromkeys((*BY_MASK, *CURVES), (0.0, 1.0))
NAMELESS = "the caption names no thing of the picture that is annotated once with a mask"
PIECES = "the name of the thing is several tokens"
FLAT = "no patch of the map has a positive value"
LACKS = (CapabilityError, PromptError, AddressError, SiteError)
"""What a method says that a model cannot take: it is left out with this reason."""
_Value = tuple[float | None, str]
"""A number, or why there is none."""


def judged_maps(
    model: HookedVLM,
    sample: Sample,
    *,
    methods: Sequence[str] | None = None,
    things: Sequence[str] = (),
    randoms: int = 3,
    steps: int = 21,
    prompt: str = PROMPT,
    max_new_tokens: int = 30,
    batch: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Every measure of every method's map of the first thing that a caption names.

    Args:
        methods: functions, such as "chefer"; None for all (`map_methods.FUNCTIONS`).
        things: names of things; one that is not in the picture is the absent word.
        randoms: maps of random numbers.
        steps: points of a curve, from nothing covered to everything.

    Returns:
        noun, method, metric ("energy", "pointing", "deletion", "insertion", "cost"), value, why
        (where there is no value: what the method, or the measure, says), skipped, options.

    Raises:
        ExperimentError: there is no such method.
    """
    names = chosen(methods)
    things = several(things, "things", least=0, error=ExperimentError)
    randoms = count(randoms, "randoms", error=ExperimentError)
    count(steps, "steps", least=2, error=ExperimentError)
    asked = Asked.from_arguments({**locals(), "things": len(things)}, COLUMNS, beside=("steps",))
    if not single_things(sample):
        return asked.skipped(MASKLESS)
    seen = named_thing(model, sample, prompt, max_new_tokens)
    mask = seen and named_mask(sample, seen.noun)
    if seen is None or mask is None:
        return asked.skipped(NAMELESS)
    if word(model.lm, seen.token).strip().lower() != seen.noun.lower():
        return asked.skipped(PIECES)
    place = place_in(model, seen.soft, seen.token, "logit", "", "pixels")
    one = Mapped(model, seen.soft, seen.token, place.labels(), batch)
    judge = _Judge(one, mask, sample.image, steps)
    random = asked.random()
    rows = [(CHANCE, *row) for _ in range(randoms)
            for row in judge.told(lambda: one.random(random))]  # fmt: skip
    for name in names:
        rows += [(name, *row) for row in judge.told(lambda name=name: METHODS[name](one))]
    absent = _absent(model, sample, things, random) if LENS in names else None
    if absent is not None:
        found = judge.told(lambda: lens_map(model, seen.soft, absent), BY_MASK)
        rows += [(ABSENT, *row) for row in found]
    return asked.answered([(seen.noun, *row) for row in rows])


def summary(
    table: pd.DataFrame, *pairs: tuple[str, str], draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Means over pictures by method and metric, and of every method's difference from chance.

    Args:
        pairs: of methods, whose differences are told besides; a pair of which one has no value in
            any picture is left out.
    """
    long = values_of(table)
    there = list(dict.fromkeys(long["arm"]))
    every = [(name, CHANCE) for name in there if name != CHANCE]
    every += [pair for pair in pairs if {*pair} <= {*there} and pair not in every]
    both = with_differences(long[long["metric"] != "cost"], *every)
    out = summarise(both, ["arm", "metric"], ranges=RANGES, draws=draws, seed=seed)
    return finished(out, "maps", table, draws=draws, seed=seed)


def values_of(table: pd.DataFrame) -> Any:
    """What was measured: sample, arm (the method), metric, value."""
    rows = used(table, "noun", "method", "metric", "value")
    rows = rows[rows["why"] == ""].rename(columns={"method": "arm"})
    return rows[["sample", "arm", "metric"]].assign(value=rows["value"].astype(float))


def named_thing(model: Any, sample: Sample, prompt: str, max_new_tokens: int) -> Explained | None:
    """The first thing with a mask, annotated once, that the model's caption names; or None."""
    forms = {form for name in single_things(sample) for form in (name, plural(name))}
    longest = sorted(forms, key=lambda form: (-len(form), form))
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b", re.IGNORECASE)
    return explain(model, sample, prompt=prompt, max_new_tokens=max_new_tokens,
                   noun=lambda said: [match[0] for match in pattern.finditer(said)])  # fmt: skip


class _Judge:
    """The measures of a map of one picture.

    Args:
        mask: of the thing, Bool[height, width].
    """

    def __init__(self, one: Mapped, mask: Any, picture: Any, steps: int) -> None:
        self.one, self.mask, self.picture, self.steps = one, mask, picture, steps
        self.on_gpu = torch.device(one.model.lm.device).type == "cuda"

        def forward() -> None:
            with torch.no_grad():
                one.model(one.soft)

        shown = one.soft.prompts[0]
        works = (lambda: read_one(one.model, shown), forward)
        self.reading, forward_ = (median(self._timed(work)[1] for _ in range(3)) for work in works)
        self.pass_ = self.reading + forward_

    def told(
        self, make: Callable[[], Scores], metrics: Sequence[str] = METRICS
    ) -> list[tuple[str, float | None, str]]:
        """Metric, value and why there is none, of the map that is made."""
        try:
            found, spent = self._timed(make)
        except LACKS as error:
            return [(metric, None, str(error)) for metric in metrics]
        values: dict[str, _Value] = {"cost": ((self.reading + spent) / self.pass_, "")}
        for own, measure in ((BY_MASK, self._by_mask), (CURVES, self._by_model)):
            if not {*own} <= {*metrics}:
                continue
            try:
                values |= measure(found)
            except LACKS as error:
                values |= dict.fromkeys(own, (None, str(error)))
        return [(metric, *values[metric]) for metric in metrics]

    def _by_mask(self, found: Scores) -> dict[str, _Value]:
        told = in_mask(self.one.model, found, self.mask, self.picture)
        energy = told["energy"]
        flat = energy != energy
        return {
            "energy": (None if flat else energy, FLAT * flat),
            "pointing": (told["pointing"], ""),
        }

    def _by_model(self, found: Scores) -> dict[str, _Value]:
        one = self.one
        curves = covering_curves(one.model, one.soft, found, one.token, after="",
                                 steps=self.steps, batch=one.batch)  # fmt: skip
        return {name: (float(curves.sel(curve=name).values.mean()), "") for name in CURVES}

    def _timed(self, make: Callable[[], Any]) -> tuple[Any, float]:
        """What is made, and the seconds: of all threads' computing, or on a GPU of the clock."""
        if not self.on_gpu:
            start = time.process_time()
            return make(), time.process_time() - start
        torch.cuda.synchronize()
        start = time.perf_counter()
        made = make()
        torch.cuda.synchronize()
        return made, time.perf_counter() - start


def _absent(
    model: Any, sample: Sample, things: Sequence[str], random: torch.Generator
) -> int | None:
    """The token of a thing that is not in the picture, drawn at random; None if there is none."""
    shown = set(sample.names)
    others = [name for name in things if name not in shown]
    for at in torch.randperm(len(others), generator=random).tolist():
        try:
            return model.to_single_token(f" {others[at]}")
        except TargetError:  # of several tokens: the next one
            continue
    return None
