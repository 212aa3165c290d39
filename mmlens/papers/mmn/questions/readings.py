"""Does what a unit is said to write fit the picture, and which way of reading it fits best?

Logit-lens decoding of a unit's output row is the paper's; `decode(..., through=)` has others.

1. Of the top units of a picture's noun, each is decoded by every reading at the sign of its
   activation; so are, in several draws, as many random units of the same layers.
2. A unit *fits* if the explained word is among its first decoded tokens: the noun, its singular or
   plural, the first piece of a noun of several tokens, or a synonym of a given list.
3. Controls: the units of other pictures against this picture's word (all pictures whose word is
   another one), and the random units against it.

Only pictures whose caption is right are asked, where it is known what they show. A lens is laid
beside the model first (`keep_lens`), so that a sweep can record which one it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.activations import activations
from mmlens.methods.decode import THROUGH, decode
from mmlens.methods.top_neurons import top_neurons
from mmlens.methods.translators import Translators
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.comparisons import holm, pairing, sign_flips
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.decoded_units import (
    neurons_of,
    numbers_of,
    partners,
    scored,
    shuffle,
    with_words,
)
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, Rule, names_thing
from mmlens.papers.tables import UNNAMED, ExperimentError, finished, used
from mmlens.pictos.scene_captions import plural
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import count, instance, several

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("through", "arm", "draw", "layer", "neuron", "sign", "words", "noun", "forms")
WRONG = "the caption names nothing that is there"
CONTROLS = ("other pictures", "random")


def keep_lens(model: HookedVLM, lens: Translators, name: str = "") -> str:
    """Lay a lens beside a model; returns the name that `unit_readings(lenses=[name])` takes.

    Args:
        name: how the table calls it, by default its kind; its digest is added.
    """
    told = f"{name or lens.kind} ({lens.digest})"
    model.lm.decoded["lens", told] = lens
    return told


def unit_readings(
    model: HookedVLM,
    sample: Sample,
    *,
    k: int = 20,
    through: Sequence[str] = ("unembed", "effect"),
    lenses: Sequence[str] = (),
    tokens: int = 10,
    randoms: int = 2,
    point: str = "pre",
    target: str = "logit",
    gain: bool = False,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """What a picture's top units say by every reading, and what random units of their layers do.

    Args:
        k: units, the highest by their largest score over the picture.
        through: "unembed" and "effect", or one of them.
        lenses: names that `keep_lens` gave.
        tokens: decoded tokens that are kept.
        randoms: how often random units are drawn.

    Returns:
        through, arm ("attributed" or "random"), draw, layer, neuron, sign, words, noun, forms (what
        counts as the word), skipped, options.

    Raises:
        ExperimentError: no such reading, or a lens that was not laid beside the model.
    """
    through, lenses = several(through, "through"), several(lenses, "lenses", least=0)
    randoms = count(randoms, "randoms", most=100, error=ExperimentError)
    asked = Asked.from_arguments(locals(), COLUMNS)
    readings = _readings(model, through, lenses)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    names = [name for name in sample.names if names_thing(seen.noun, name)]
    if sample.names and not names:
        return asked.skipped(WRONG)
    active = activations(model, seen.soft, "neurons")
    best = top_neurons(scored(model, seen, point, target), k, rank_by="max", active=active)
    arms = [("attributed", 0, best)]
    random = asked.random()
    for draw in range(randoms):
        other = partners(model, numbers_of(model, list(best["neuron"])), shuffle(model, random))
        if other is not None:
            own = best.assign(neuron=neurons_of(model, other))
            at = zip(own["neuron"], own["patch"], strict=True)
            own["active"] = [active.sel(unit, pos=label).item() for unit, label in at]
            arms.append(("random", draw, own))
    forms = forms_of(model, seen, names)
    parts = [
        _read(model, seen, units, how, tokens, gain).assign(through=name, arm=arm, draw=draw)
        for name, how in readings
        for arm, draw, units in arms
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(noun=seen.noun, forms=[forms] * len(table))
    return asked.answered(table.reindex(columns=list(COLUMNS)))


def forms_of(model: HookedVLM, seen: Explained, names: Iterable[str] = ()) -> list[str]:
    """What counts as the explained word: in lower case, without spaces."""
    whole = [seen.noun.lower(), *(name.lower() for name in names)]
    first = word(model.lm, seen.token).strip().lower()
    return sorted({*whole, *map(plural, whole), *([first] if len(first) > 2 else [])})


def _readings(
    model: HookedVLM, through: Sequence[str], lenses: Sequence[str]
) -> list[tuple[str, Any]]:
    known = [name for name in THROUGH if name in ("unembed", "effect")]
    for name in through:
        if not isinstance(name, str) or name not in known:
            raise ExperimentError(
                f"There is no reading {name!r}: write {' or '.join(map(repr, known))}; a lens goes"
                " into lenses=[keep_lens(model, lens)]."
            )
    found: list[tuple[str, Any]] = [(name, name) for name in through]
    for name in lenses:
        lens = model.lm.decoded.get(("lens", str(name)))
        if lens is None:
            raise ExperimentError(
                f"There is no lens {name!r} beside {model.name!r}: write"
                " lenses=[keep_lens(model, lens)]."
            )
        found.append((str(name).rpartition(" (")[0], lens))
    return found


def _read(
    model: HookedVLM, seen: Explained, units: pd.DataFrame, how: Any, tokens: int, gain: bool
) -> pd.DataFrame:
    said = decode(model, units, tokens, gain=gain, through=how, prompt=seen.soft)
    if "moved" in said.columns:  # a unit that is off moves no logit, and says nothing
        pairs = zip(said["words"], said["moved"], strict=True)
        said["words"] = [[w for w, by in zip(*one, strict=True) if by > 0] for one in pairs]
    rows = with_words(units, said)
    return rows.assign(layer=[neuron.layer for neuron in rows["neuron"]])


def summary(
    table: pd.DataFrame,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """By reading and layer, the share of units that fit: through, arm, metric, layer, mean, ..., p.

    Metric "fits" is the share of a picture's units, "one fits" whether any does. Arms: the
    attributed units, both controls, and the differences from them. `p` of these: how often pictures
    dealt anew to the units fit as well (`comparisons.pairing`), or how often random signs of the
    pictures' differences do (`comparisons.sign_flips`); at layer "all" corrected for the number of
    readings (Holm).

    Args:
        table: of `unit_readings`.
        synonyms: by noun, other words that count as it.
    """
    rows = used(table, "through", "arm", "neuron", "words", "forms")
    synonyms = instance({} if synonyms is None else synonyms, "synonyms", Mapping, "lists by noun")
    names = list(dict.fromkeys(rows["sample"]))
    first: Any = rows.drop_duplicates("sample").set_index("sample")
    wanted = [
        {*first["forms"][name], *(w.lower() for w in synonyms.get(first["noun"][name], ()))}
        for name in names
    ]
    rows = rows.assign(layer=[str(int(layer)) for layer in rows["layer"]])
    found, tests = [], {}
    for through, own in rows.groupby("through", sort=False):
        units = _fits(own, names, wanted)
        for layer in ["all", *sorted(set(own["layer"]), key=int)]:
            keep = np.full(len(own), True) if layer == "all" else (own["layer"] == layer).to_numpy()
            for metric, over in (("fits", np.mean), ("one fits", np.max)):
                part, p = _compared(own[keep], units[keep], names, wanted, over, seed)
                found.append(part.assign(through=through, layer=layer, metric=metric))
                tests |= {(arm, through, metric, layer): value for arm, value in p.items()}
    long: Any = pd.concat(found, ignore_index=True)
    long = with_differences(long, *(("attributed", control) for control in CONTROLS))
    keys = ["through", "arm", "metric", "layer"]
    out = summarise(long, keys, draws=draws, seed=seed)
    out["p"] = [
        tests.get((arm, through, metric, layer), np.nan)
        for through, arm, metric, layer in out[keys].itertuples(index=False)
    ]
    for _, one in out[out["layer"] == "all"].groupby(["arm", "metric"]):
        out.loc[one.index, "p"] = holm(one["p"].tolist())
    return finished(
        out, "readings", table, draws=draws, seed=seed, synonyms={k: list(v) for k, v in
        synonyms.items()},
    )  # fmt: skip


def _fits(own: Any, names: list[str], wanted: list[set[str]]) -> np.ndarray:
    """Bool[unit, picture]: whether a unit's tokens say the word of each picture."""
    said = [{token.strip().lower() for token in words} for words in own["words"]]
    return np.array([[not forms.isdisjoint(one) for forms in wanted] for one in said])


def _compared(
    own: Any, units: np.ndarray, names: list[str], wanted: list[set[str]], over: Any, seed: int
) -> tuple[pd.DataFrame, dict[str, float]]:
    """A value per picture and arm, and the p-values of the two differences."""
    place = {name: i for i, name in enumerate(names)}
    at, n = np.array([place[name] for name in own["sample"]]), len(names)
    there = (own["arm"] == "attributed").to_numpy()
    own_of = np.full((n, n), np.nan)  # units of picture j, word of picture i
    for j in np.unique(at[there]):
        own_of[j] = over(units[there & (at == j)], axis=0)
    apart = np.array([[a.isdisjoint(b) for b in wanted] for a in wanted])
    others = np.where(apart, own_of, np.nan)
    random = np.full(n, np.nan)
    draws = own["draw"].to_numpy()
    for i in np.unique(at[~there]):
        mine = ~there & (at == i)
        each = [over(units[mine & (draws == draw), i]) for draw in np.unique(draws[mine])]
        random[i] = np.mean(each)
    with_others = ~np.isnan(others).all(0)
    mean = np.full(n, np.nan)
    mean[with_others] = np.nanmean(others[:, with_others], axis=0)
    arms = {"attributed": own_of.diagonal(), "other pictures": mean, "random": random}
    table = pd.concat(
        [pd.DataFrame({"sample": names, "arm": arm, "value": v}) for arm, v in arms.items()],
        ignore_index=True,
    ).dropna(subset="value")
    p = {
        "attributed - other pictures": pairing(own_of, seed=seed),
        "attributed - random": sign_flips(arms["attributed"] - random, seed=seed),
    }
    return table, p
