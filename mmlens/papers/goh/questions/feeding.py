"""Is a neuron that translates a picture into its word fed by multimodal units of the encoder?

A bridge projects an encoder's units into a language model. *Translating neurons* of a picture are
those of highest attribution for the word of its thing whose decode has that word among its first
ten (Schwettmann et al. 2023). *Multimodal units* of a thing are those of the highest cross-format
index, the least z over formats (Goh et al. 2021; `mmlens.methods.cross_format`), read from other
pictures than those that are asked about. Per picture both are silenced:

    taken = sum over pictures of (activation - activation without the units) / sum of activations

of the neuron at the position where it scores highest, with the k multimodal units of the thing
silenced, and with k other units that are as active on this very picture (each the nearest in
activation among units outside). The difference of the two has an interval: the claim holds if it
lies above 0, fails if it lies below, and is undecided otherwise. A second control takes units that
answer to the thing in the shown format most and do not in the others. Pictures of one thing are
added up first: they show one drawing of it, and intervals are over things.

    mmlens reproduce goh --feeding --model pictos-clip-bridge --each 4 --out DIR    # all things
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from mmlens.methods.attribute import attribute
from mmlens.methods.cross_format import cross_format_index
from mmlens.methods.decode import decode
from mmlens.methods.neuron_graph import FEATURES
from mmlens.methods.top_neurons import top_neurons
from mmlens.methods.unit_responses import unit_responses
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import one
from mmlens.papers.bootstrap import intervals
from mmlens.papers.claims import Verdict
from mmlens.papers.goh.questions.formats import STYLES, spread_things, world
from mmlens.pictos.scene_captions import a
from mmlens.values.addresses import places
from mmlens.values.arguments import count, path
from mmlens.values.edit import Edit
from mmlens.values.errors import MMLensError, writing
from mmlens.values.labels import Neuron, Patch
from mmlens.values.prompt import Prompt
from mmlens.values.sites import SITES
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

ARMS = ("multimodal", "as active", "one format")
AFTER = {"drawing": " {article}", "symbol": " a drawing of {article}", "written": " the word"}
COLUMNS = ["concept", "format", "neuron", "arm", "before", "after", "n_units"]
CLAIM = "The translating neurons are fed by multimodal units more than by others as active"


@needs("logits", "neurons", "pictures", "grid", "positions")
def feeding(
    model: HookedVLM,
    concepts: Sequence[str],
    *,
    each: int = 8,
    k: int = 10,
    neurons: int = 20,
    formats: Sequence[str] = ("drawing",),
    seed: int = 0,
) -> pd.DataFrame:
    """One row per picture and arm: concept, format, neuron, arm, before, after, n_units.

    Args:
        concepts: things of the bundled world.
        each: pictures of a thing and format; the first half says which units are multimodal, the
            second half is asked about.
        k: units that are silenced.
        neurons: so many of the highest attribution are looked through for one that translates.
        formats: of the pictures that are asked about: "drawing", "symbol", "written".
    """
    half = count(each, "each", least=4) // 2
    shown = world(concepts, each, seed=seed)
    responses = {
        name: {c: _responses(model, own[c][:half]) for c in concepts} for name, own in shown.items()
    }
    rows = []
    for concept in concepts:
        index = _index(responses, concept)
        for name in formats:
            for picture in shown[name][concept][half:]:
                rows += _asked(model, picture, concept, name, index, count(k, "k"), neurons)
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["about"] = about(model, method="feeding", each=each, k=k, seed=seed,
                                 concepts=", ".join(concepts))  # fmt: skip
    return table


def feeding_study(
    model: HookedVLM | str | Path,
    concepts: Sequence[str] | int | None = None,
    out: str | Path = "feeding",
    *,
    each: int = 4,
    seed: int = 0,
) -> tuple[Verdict, Path]:
    """The verdict over things of the bundled world, and the table of `feeding` as OUT/feeding.csv.

    Args:
        model: a bridge, or what `mm.load` takes, such as "pictos-clip-bridge".
        concepts: things by name, or how many; all 223 when left out.
    """
    from mmlens.families import load

    loaded: Any = load(model) if isinstance(model, str | Path) else model
    if concepts is None or isinstance(concepts, int):
        concepts = spread_things(concepts)
    table = feeding(loaded, concepts, each=each, seed=seed)
    file = path(out, "out") / "feeding.csv"
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, table.to_csv(index=False, float_format="%.5g", lineterminator="\n"))
    return fed_verdict(table)[0], file


def fed_verdict(table: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> tuple[Verdict, Any]:
    """The verdict, and mean, low and high of each arm and of both differences.

    Args:
        table: what `feeding` returns.
    """
    if not len(table):
        return Verdict("M18", CLAIM, None, "No picture had a translating neuron."), None
    things: Any = table.groupby(["concept", "arm"], sort=False)[["before", "after"]].sum()
    before = things["before"].unstack("arm")[list(ARMS)]
    taken = before - things["after"].unstack("arm")[list(ARMS)]
    gaps = {f"{ARMS[0]} - {other}": taken[ARMS[0]] - taken[other] for other in ARMS[1:]}
    whole = pd.concat([taken, pd.DataFrame(gaps)], axis=1)
    bases = np.repeat(before[[ARMS[0]]].to_numpy(), whole.shape[1], axis=1)
    found = intervals(whole.to_numpy(), bases, draws=draws, seed=seed)
    summary = pd.DataFrame(found, columns=["mean", "low", "high"], index=whole.columns)
    low, high = summary.loc["multimodal - as active", ["low", "high"]]
    holds = True if low > 0 else False if high < 0 else None
    told = [f"{name} {row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            for name, row in summary.iterrows()]  # fmt: skip
    n = f"{len(table) // len(ARMS)} pictures of {len(before)} things"
    says = f"share of the activation that is taken, over {n}: {'; '.join(told)}"
    return Verdict("M18", CLAIM, holds, says), summary


def _responses(model: HookedVLM, pictures: Sequence[Any]) -> np.ndarray:
    """Float[picture, unit] of what the projection reads, mean over positions."""
    found = unit_responses(model, pictures, site=FEATURES, over="mean")
    return found.values.float().cpu().numpy()


def _index(responses: dict[str, dict[str, np.ndarray]], concept: str) -> pd.DataFrame:
    """The cross-format index of every unit for a thing, in the order of units."""
    both = {
        name: (own[concept], np.concatenate([x for c, x in own.items() if c != concept]))
        for name, own in responses.items()
    }
    return cross_format_index(both, draws=1).sort_values("unit", ignore_index=True)


def _asked(
    model: HookedVLM, picture: Any, concept: str, shown_as: str, index: pd.DataFrame, k: int, n: int
) -> list[dict[str, Any]]:
    """The arms of one picture; nothing where no neuron translates it."""
    prompt = Prompt(picture, "A picture of")
    article = a(concept).partition(" ")[0]
    after = AFTER[shown_as].format(article=article)
    try:
        scores = attribute(model, prompt, f" {concept}", after=after, point="post")
    except MMLensError:
        return []  # a thing whose name is several tokens
    at_picture = scores.sel(pos=Patch)
    best = list(top_neurons(at_picture, n, rank_by="max")["neuron"])
    said = decode(model, best)
    named = [neuron for neuron, words in zip(said["neuron"], said["words"], strict=True)
             if any(one.strip() == concept for one in list(words)[:10])]  # fmt: skip
    if not named:
        return []
    neuron = named[0]
    own = at_picture.sel(neuron)
    pos = own.of("pos")[int(own.values.argmax())]
    before = _activation(model, prompt, neuron, pos)
    if before <= 0:
        return []
    rows = []
    for arm, units in _arms(model, picture, index, shown_as, k).items():
        silenced = model.edit(Edit(FEATURES, 0.0, dim=units))
        after_it = _activation(silenced, prompt, neuron, pos)
        rows.append({"concept": concept, "format": shown_as, "neuron": neuron, "arm": arm,
                     "before": before, "after": after_it, "n_units": len(units)})  # fmt: skip
    return rows


def _arms(
    model: HookedVLM, picture: Any, index: pd.DataFrame, shown_as: str, k: int
) -> dict[str, list[int]]:
    """The units of each arm: the first by index, as active ones, and those of one format."""
    active = _responses(model, [picture])[0]
    first = index["z"].to_numpy().argsort()[::-1][:k]
    left = {int(unit): float(active[unit]) for unit in range(len(active)) if unit not in first}
    alike = []
    for unit in first:
        near = min(left, key=lambda other: abs(left[other] - active[unit]))
        alike.append(near)
        del left[near]
    others = [f"z {name}" for name in STYLES if name != shown_as]
    single = index[f"z {shown_as}"].where(index[others].max(axis=1) < 0.5, -np.inf).to_numpy()
    return dict(
        zip(ARMS, (first.tolist(), alike, single.argsort()[::-1][:k].tolist()), strict=True)
    )


def _activation(model: HookedVLM, prompt: Prompt, neuron: Neuron, pos: Any) -> float:
    """The activation of a neuron at one position of the picture."""
    soft = one(model, prompt)
    (at,) = places(soft.labels[0], [pos], "pos")
    name = SITES["neurons"].at(neuron.layer)
    with torch.no_grad(), capture(model, [name], lambda x: x[0, at, neuron.unit]) as kept:
        model.run(soft)
    return float(kept[name])
