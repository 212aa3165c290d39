"""What is lost of a word without the first K neurons of a list, and without others?

1. Caption the picture; explain its first noun (`mmn.questions.explained`).
2. Each list ranks the neurons for that noun (`LISTS`), or is given and the same for all pictures.
3. Its first K are silenced at all positions (0 after the activation function), and so are K others
   drawn from the same layers. A list that is shorter than K is silenced whole.
4. What is left of the noun's probability where it was said; whether each neuron's own row says the
   noun (among its ten most probable tokens; of gated MLPs at the sign of its activation); how many
   lie in the upper half of the layers.

Positions: the lists' own for the ranking, all for the silencing. Path: all that follows. Others of
the same layers say what is lost by silencing anything there; that less is lost without one list
than without another says nothing of why its neurons are active.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.causal.silencing import number_after, units_at
from mmlens.datasets.sample import Sample
from mmlens.methods.activations import activations
from mmlens.methods.contributions import contributions
from mmlens.methods.decode import decode
from mmlens.methods.direct_logits import direct_logits
from mmlens.methods.integrated_gradients import integrated_gradients
from mmlens.methods.text_neurons import text_neurons
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.mmn.questions.ablation import numbers
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import (
    neurons_of,
    numbers_of,
    partners,
    ranked,
    scored,
    shuffle,
    signs,
)
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, Rule, names_thing
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import count, instance
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

CONTRIBUTIONS, T_NEURONS = "contributions (Pan)", "T-neurons (NAM)"
ACTIVE, DIRECT = "activation, last position", "direct logits"
GRADIENT, SUMMED = "gradient x activation, patches", "gradient x activation, all positions"
INTEGRATED = "integrated gradients, all positions"
FIRST, OTHERS = "first", "others"
COLUMNS = ("noun", "list", "arm", "k", "units", "before", "probability", "says", "upper")
WORDS, STEPS = 10, 8


def _flat(scores: Scores) -> torch.Tensor:
    """Units of Scores(layer, unit), the highest first."""
    return scores.values.flatten().argsort(descending=True, stable=True).cpu()


def _integrated(model: Any, seen: Explained) -> Scores:
    """Integrated gradients in `STEPS` steps: what their sum misses does not matter to an order."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The integrated gradients of layer", UserWarning)
        return integrated_gradients(model, seen.soft, seen.token, after="", steps=STEPS)


LISTS: dict[str, Callable[[Any, Explained], torch.Tensor]] = {
    CONTRIBUTIONS: lambda model, seen: _flat(
        contributions(model, seen.soft, seen.token, after="")
    ),
    T_NEURONS: lambda model, seen: _flat(text_neurons(model, seen.soft, seen.token, after="")),
    ACTIVE: lambda model, seen: _flat(activations(model, seen.soft, "neurons", pos=-1)),
    DIRECT: lambda model, seen: _flat(
        direct_logits(model, seen.soft, seen.token, by="neuron")
    ),
    GRADIENT: lambda model, seen: ranked(scored(model, seen)),
    SUMMED: lambda model, seen: ranked(scored(model, seen, "post"), "sum", None),
    INTEGRATED: lambda model, seen: ranked(_integrated(model, seen), "sum", None),
}  # fmt: skip
"""By name, all units as numbers layer * units + unit, the first in the list first."""


def silenced_lists(
    model: HookedVLM,
    sample: Sample,
    *,
    given: Mapping[str, Any] | None = None,
    ks: Sequence[int | float] = (10, 100, 0.02),
    drawn: int = 3,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    batch: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What the first K of each list are to the noun of one picture.

    Args:
        given: more lists by name: neurons, as they print, or such lists by noun, as `pool_lists`
            returns them.
        ks: how many are silenced, as numbers or shares of all units.
        drawn: how often others are drawn.

    Returns:
        noun, list, arm ("first", "others"), k, units (how many were silenced), before and
        probability (without and with silencing), says (with the smallest k: the share of these
        units whose row says the noun), upper (that of those in the upper half of the layers),
        skipped, options.
    """
    given = instance({} if given is None else given, "given", Mapping, "lists by name")
    asked = Asked.from_arguments({**locals(), "given": sorted(given)}, COLUMNS)
    counts = [k for k in numbers(ks, model.cfg.n_layers * model.cfg.d_mlp) if k]
    drawn = count(drawn, "drawn", error=ExperimentError)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    orders = {name: make(model, seen) for name, make in LISTS.items()}
    orders |= {name: numbers_of(model, _own(one, seen.noun)) for name, one in given.items()}
    random = asked.random()
    draws = [shuffle(model, random) for _ in range(drawn)]
    arms: list[tuple[str, str, int, torch.Tensor]] = []
    for name, order in orders.items():
        for k in counts if len(order) else ():
            arms.append((name, FIRST, k, order[:k]))
            for draw in draws:
                others = partners(model, order[:k], draw)
                arms += [] if others is None else [(name, OTHERS, k, others)]
    none = torch.zeros(0, dtype=torch.long)
    silenced = [units_at(model, chosen) for chosen in (none, *(one[-1] for one in arms))]
    prob = number_after(
        model, seen.soft, lambda y: y.softmax(-1)[:, seen.token], silenced, batch=batch
    ).tolist()
    read = [chosen for _, _, k, chosen in arms if k == counts[0]]
    says = _says(model, seen, torch.cat([none, *read]).unique())
    half = model.cfg.n_layers // 2 * model.cfg.d_mlp
    return asked.answered([
        (seen.noun, name, arm, k, len(chosen), prob[0], after,
         says(chosen) if k == counts[0] else None, float((chosen >= half).float().mean()))
        for (name, arm, k, chosen), after in zip(arms, prob[1:], strict=True)
    ])  # fmt: skip


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """By list, arm ("first", "others", "first - others"), k and metric: "lost", "says", "upper".

    "lost" is the share of the noun's probability that is gone, a ratio of means over pictures; the
    others are shares of the units.
    """
    rows = used(table, *(name for name in COLUMNS if name != "says"))
    keys = rows[["sample", "list", "arm", "k"]]
    before, after = rows["before"].astype(float), rows["probability"].astype(float)
    long = [keys.assign(metric="lost", value=before - after, base=before)]
    long += [keys.assign(metric=name, value=rows[name].astype(float), base=1.0)
             for name in ("says", "upper")]  # fmt: skip
    every: Any = pd.concat(long).dropna(subset=["value"])
    both = with_differences(every, (FIRST, OTHERS))
    out = summarise(both, ["list", "arm", "k", "metric"], draws=draws, seed=seed)
    return finished(out, "silenced lists", table, draws=draws, seed=seed)


def _own(one: Any, noun: str) -> list[Neuron]:
    """The neurons of a given list, or of the one for this noun; none where there is none."""
    if isinstance(one, Mapping):
        one = next((each for name, each in one.items() if names_thing(noun, str(name))), [])
    return [Neuron.parse(str(each)) for each in one]


def _says(
    model: HookedVLM, seen: Explained, units: torch.Tensor
) -> Callable[[torch.Tensor], float]:
    """Which of these units' rows say the noun, as a function of some of them: their share."""
    neurons = neurons_of(model, units)
    gated = signs(model, seen)
    active = None if gated is None else gated.sel(pos=-1).values.flatten()[units].tolist()
    said = decode(model, neurons, WORDS, active=active)
    own = word(model.lm, seen.token)
    hits = torch.tensor([own in words for words in said["words"]], dtype=torch.float)

    def share(chosen: torch.Tensor) -> float:
        return float(hits[torch.searchsorted(units, chosen)].mean())

    return share
