"""What is lost of a word without a circuit, and what is kept with the circuit alone?

1. Caption the picture; explain its first noun (`mmn.questions.explained`).
2. Its circuit: the k units of each layer that most feed those behind them (`visual_circuit`).
3. The circuit is silenced at all positions (0 after the activation function); then all other units
   of the language model are, and the circuit is kept.
4. The same with as many others of the same layers, drawn anew; with as many units that `attribute`
   puts first, in whatever layers; and with others of theirs.

The paper finds the circuit of a few examples of a concept; here each picture is its own.

Positions: all. Path: everything between two layers. That more is lost without a circuit than
without others says that it is needed, not that these units are all, or joined as its edges say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.causal.silencing import number_after, units_at
from mmlens.datasets.sample import Sample
from mmlens.methods.visual_circuit import visual_circuit
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import (
    numbers_of,
    partners,
    ranked,
    scored,
    shuffle,
)
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.values.arguments import count

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

CIRCUIT, OTHERS = "circuit", "others of its layers"
FIRST, FIRST_OTHERS = "first by attribute", "others of their layers"
COLUMNS = ("noun", "arm", "k", "units", "before", "probability", "alone")
PAIRS = ((CIRCUIT, OTHERS), (FIRST, FIRST_OTHERS), (CIRCUIT, FIRST))
"""What is compared picture by picture."""


def pruned_circuit(
    model: HookedVLM,
    sample: Sample,
    *,
    ks: Sequence[int] = (5, 25),
    drawn: int = 3,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    batch: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The noun's probability without a circuit, and with it alone, beside others.

    Args:
        ks: units of each layer, a circuit for each number.
        drawn: how often others are drawn.

    Returns:
        noun, arm ("circuit", "others of its layers", "first by attribute", "others of their
        layers"), k, units (how many), before, probability (without them), alone (with them, without
        all others), skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    ks = [count(k, "ks", error=ExperimentError) for k in ks]
    drawn = count(drawn, "drawn", error=ExperimentError)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    order, random = ranked(scored(model, seen)), asked.random()
    draws = [shuffle(model, random) for _ in range(drawn)]
    arms: list[tuple[str, int, torch.Tensor]] = []
    for k in ks:
        edges = visual_circuit(model, seen.soft, seen.token, k=k, after="")
        own = numbers_of(model, list(dict.fromkeys(edges["source"])))
        for arm, other, units in ((CIRCUIT, OTHERS, own), (FIRST, FIRST_OTHERS, order[: len(own)])):
            some = [partners(model, units, draw) for draw in draws]
            arms += [(arm, k, units), *((other, k, one) for one in some if one is not None)]
    every = torch.arange(model.cfg.n_layers * model.cfg.d_mlp)
    rest = [every[~torch.isin(every, units)] for _, _, units in arms]
    silenced = [every[:0], *(units for *_, units in arms), *rest]
    prob = number_after(
        model, seen.soft, lambda y: y.softmax(-1)[:, seen.token],
        [units_at(model, units) for units in silenced], batch=batch,
    ).tolist()  # fmt: skip
    before, without, alone = prob[0], prob[1 : len(arms) + 1], prob[len(arms) + 1 :]
    return asked.answered([
        (seen.noun, arm, k, len(units), before, lost, kept)
        for (arm, k, units), lost, kept in zip(arms, without, alone, strict=True)
    ])  # fmt: skip


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """By arm (and differences of `PAIRS`), k and metric: "lost" and "kept".

    Shares of the noun's probability: what is gone without the units, and what is left with them
    alone; ratios of means over pictures.
    """
    rows = used(table, *COLUMNS)
    keys = rows[["sample", "arm", "k"]]
    before = rows["before"].astype(float)
    values = {"lost": before - rows["probability"].astype(float),
              "kept": rows["alone"].astype(float)}  # fmt: skip
    long: Any = pd.concat([keys.assign(metric=name, value=value, base=before)
                           for name, value in values.items()])  # fmt: skip
    there = set(long["arm"])
    both = with_differences(long, *(pair for pair in PAIRS if there.issuperset(pair)))
    out = summarise(both, ["arm", "k", "metric"], draws=draws, seed=seed)
    return finished(out, "pruned circuits", table, draws=draws, seed=seed)
