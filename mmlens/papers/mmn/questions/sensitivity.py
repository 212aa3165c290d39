"""What the paper leaves open, and what each reading of it changes.

Every ambiguity is an option with the default that the specification names. Here each option is
changed alone, on the same pictures, and its effect is measured on what the experiments report:

    units shared     Jaccard index of the different top units with those of the default
    interpretable    share of the top units that say words (2.2: about one half)
    layer            mean layer of the top units (E6)
    best text        E1: the best interpretable unit's word overlap with the captions
    IoU              E3: mean over the top units, things annotated once and named by the noun
    drop             E5: 1 - p / p_0 when a share of all units is silenced, the top ones first;
                     over pictures 1 - mean p / mean p_0 (`bootstrap`)

With eight options and six quantities some differences look clear by chance: a difference's `p` is
that of `comparisons.sign_flips`, corrected for all of them (`comparisons.holm`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.causal.silencing import number_after, units_at
from mmlens.datasets.sample import Sample
from mmlens.methods.decode import decode
from mmlens.methods.top_neurons import top_neurons
from mmlens.metrics.counts import word_overlap_f1
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.comparisons import holm, sign_flips
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import ranked, scored
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, Rule
from mmlens.papers.mmn.questions.regions import named_mask
from mmlens.papers.mmn.questions.unit_masks import true_mask, unit_ious
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.values.arguments import several
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DEFAULT: dict[str, Any] = {
    "point": "pre",
    "target": "logit",
    "rank_by": "pair",
    "gain": False,
    "value": 0.0,
    "where": "all",
}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "point=post": {"point": "post"},
    "target=prob": {"target": "prob"},
    "target=logprob": {"target": "logprob"},
    "rank_by=max": {"rank_by": "max"},
    "rank_by=sum": {"rank_by": "sum"},
    "gain=True": {"gain": True},
    "value=mean": {"value": "mean"},
    "where=image": {"where": "image"},
}
COLUMNS = ("arm", "metric", "value")
BEFORE = "probability before"


def option_effects(
    model: HookedVLM,
    sample: Sample,
    *,
    changes: Sequence[str] = tuple(CHANGES),
    k: int = 100,
    silence: float = 0.014,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    batch: int | None = None,
) -> pd.DataFrame:
    """What each option changes for one picture.

    Args:
        changes: of `CHANGES`; "default" is what the others are compared with.
        k: pairs (with "max" and "sum": units) of the top list.
        silence: share of all units that is silenced for "drop" (the paper's 6400 are 0.014).

    Returns:
        arm (the option), metric, value, skipped, options. The metric "probability before" is p_0.
    """
    changes = several(changes, "changes")
    asked = Asked.from_arguments(locals(), COLUMNS, default=DEFAULT)
    unknown = [change for change in changes if not isinstance(change, str) or change not in CHANGES]
    if unknown:
        raise ExperimentError(f"There is no change {unknown[0]!r}: there is {', '.join(CHANGES)}.")
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    choices = {name: DEFAULT | CHANGES[name] for name in dict.fromkeys(["default", *changes])}
    read: dict[tuple[str, str], Scores] = {}
    for how in choices.values():
        key = how["point"], how["target"]
        read[key] = read[key] if key in read else scored(model, seen, *key)
    found = {name: read[how["point"], how["target"]] for name, how in choices.items()}
    top = {
        name: list(
            dict.fromkeys(top_neurons(scores, k, rank_by=choices[name]["rank_by"])["neuron"])
        )
        for name, scores in found.items()
    }
    rows = [(name, "units shared", _jaccard(top["default"], units)) for name, units in top.items()]
    for name, how in choices.items():
        said = _said(model, sample, top[name], how["gain"])
        rows += [(name, metric, value) for metric, value in said.items()]
    mask = named_mask(sample, seen.noun)
    if mask is not None:
        every = [neuron for units in top.values() for neuron in units]
        met = unit_ious(model, seen.soft, every, true_mask(model, mask))
        rows += [(name, "IoU", sum(met[n] for n in own) / len(own)) for name, own in top.items()]
    drops, before = _drops(model, seen, found, choices, silence, batch)
    rows += [(name, "drop", value) for name, value in drops.items()]
    rows.append(("default", BEFORE, before))
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """One row per option and metric, and its difference from the default: experiment, arm, ..., p.

    `p` is of differences, and corrected for the number of them (NaN for the options themselves).
    """
    rows: Any = used(table, *COLUMNS)[["sample", *COLUMNS]]
    rows["value"] = rows["value"].astype(float)
    first = rows[rows["metric"] == BEFORE].drop_duplicates("sample").set_index("sample")["value"]
    rows = rows[rows["metric"] != BEFORE].assign(base=1.0)
    drops = rows["metric"] == "drop"
    if not (drops.any() and len(first)):
        raise ExperimentError(f"This table has no 'drop' and {BEFORE!r}: ask `option_effects`.")
    rows.loc[drops, "base"] = rows.loc[drops, "sample"].map(first)
    rows.loc[drops, "value"] *= rows.loc[drops, "base"]
    others = [name for name in dict.fromkeys(rows["arm"]) if name != "default"]
    every = with_differences(rows, *((name, "default") for name in others))
    out = summarise(every, ["arm", "metric"], draws=draws, seed=seed)
    gaps = every[every["arm"].str.endswith(" - default")].groupby(["arm", "metric"], sort=False)
    chance = {key: sign_flips(part["value"], seed=seed) for key, part in gaps}
    corrected = dict(zip(chance, holm(list(chance.values())), strict=True))
    keys = zip(out["arm"], out["metric"], strict=True)
    out = out.assign(p=[corrected.get(key, float("nan")) for key in keys])
    return finished(out, "sensitivity", table, draws=draws, seed=seed)


def _said(model: HookedVLM, sample: Sample, top: list[Neuron], gain: bool) -> dict[str, float]:
    said: Any = decode(model, top, gain=gain)
    found = {
        "interpretable": float(said["interpretable"].mean()),
        "layer": sum(neuron.layer for neuron in top) / len(top),
    }
    speaking = said.loc[said["interpretable"], "words"]
    texts = [", ".join(token.strip() for token in tokens) for tokens in speaking]
    if texts and sample.captions:
        overlap = word_overlap_f1(texts, [sample.captions] * len(texts), over="mean")
        found["best text"] = max(overlap.items)
    return found


def _jaccard(one: list[Neuron], other: list[Neuron]) -> float:
    return len(set(one) & set(other)) / len(set(one) | set(other))


def _drops(
    model: HookedVLM,
    seen: Explained,
    found: Mapping[str, Scores],
    choices: Mapping[str, Mapping[str, Any]],
    silence: float,
    batch: int | None,
) -> tuple[dict[str, float], float]:
    """1 - p / p_0 without the top units, by reading, and p_0; those that silence alike together."""
    out: dict[str, float] = {}
    before = float("nan")
    ways = dict.fromkeys((how["value"], how["where"]) for how in choices.values())
    for value, where in ways:
        same = [n for n, how in choices.items() if (how["value"], how["where"]) == (value, where)]
        orders = [ranked(found[name], choices[name]["rank_by"]) for name in same]
        lists = [order[: max(1, round(silence * len(order)))] for order in orders]
        units = [units_at(model, some) for some in (orders[0][:0], *lists)]
        number = lambda logits: logits.softmax(-1)[:, seen.token]  # noqa: E731
        before, *after = number_after(
            model, seen.soft, number, units, value=value, where=where, batch=batch
        ).tolist()
        out |= {name: 1 - p / before for name, p in zip(same, after, strict=True)}
    return out, before
