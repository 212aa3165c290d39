"""Whether a graph is true of its model: its nodes are silenced, and others that are as active.

A graph predicts what the word loses without a node (`effect`, with patterns, norms and factors
held, along the paths in the graph). Here each node is set to 0 at its position and the model runs
again: what the word lost is `ablation`. Beside every unit stands another of its layer, which is no
node, at the same position, and of about the same activation. A graph that says something predicts
what its own nodes do, and they do more than the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmlens.methods.explained_word import ExplainedWord
from mmlens.methods.translators import same_state
from mmlens.model import readouts
from mmlens.model.capabilities import require
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.runtime.progress import Progress, tracked
from mmlens.tally.intervals import intervals
from mmlens.values.arguments import SEEDS, count, instance, spelled
from mmlens.values.edit import Edit
from mmlens.values.errors import ArgumentError
from mmlens.values.graph_tables import ERROR, UNIT, AttributionGraph
from mmlens.values.labels import LM, Neuron
from mmlens.values.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

MOST, DRAWS, NEAR = 1000, 2000, 10
"""Nodes; draws of an interval; of how many units of the nearest activation one is drawn."""
COLUMNS = ["node", "arm", "neuron", "pos", "value", "effect", "ablation"]


@spelled
def check_graph(
    graph: AttributionGraph,
    model: HookedVLM,
    prompt: Any,
    *,
    k: int = 20,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """What silencing nodes takes from the word, beside what the graph predicts: a table.

    Args:
        graph: what `attribution_graph` gave. model, prompt: of which it was made.
        k: at most so many nodes, units and errors, those of most influence.
        seed: of the units that are drawn for comparison.
        progress: as in `patching.patch`, node by node.

    Returns:
        Columns node, arm ("graph" or "random"), neuron (None of errors), pos, value (the
        activation), effect (the prediction; NaN of random ones), ablation (what the word's number
        lost). `attrs["summary"]` has a row each for "correlation" (of effect and ablation over the
        nodes), "graph", "random" (means of |ablation| of units) and "difference" (pair by pair),
        with columns value, low, high (95 %) and n.

    Raises:
        ArgumentError: the graph is of another prompt or model: the word's number differs.
    """
    import pandas as pd

    instance(graph, "graph", AttributionGraph, "what mm.attribution_graph(...) gives")
    require(model, "logits", "positions")
    k, seed = count(k, "k", most=MOST), count(seed, "seed", least=0, most=SEEDS)
    asked = _asked(model, prompt, graph)
    inner = graph.nodes[graph.nodes["kind"].isin([UNIT, ERROR])]
    inner = inner.sort_values("influence", ascending=False, kind="stable").head(k)
    chosen: list[Any] = inner.to_dict("records")
    others = _as_active(model, asked, graph, chosen, np.random.default_rng(seed))
    rows = []
    for node, other in tracked(list(zip(chosen, others, strict=True)), "check_graph", progress):
        lost = asked.without(_silent(model, node))
        unit = node["neuron"] if node["kind"] == UNIT else None
        rows.append((node["node"], "graph", unit, node["pos"], node["value"], node["effect"], lost))
        if other is not None:
            neuron, pos, value = other
            lost = asked.without(Edit(_site(model, neuron).name, 0.0, neuron, pos=pos))
            rows.append((node["node"], "random", neuron, pos, value, np.nan, lost))
    table: Any = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["summary"] = _summary(table, seed)
    table.attrs["about"] = about(model, method="check_graph", prompt=asked.soft, of=asked.word, k=k,
                                 seed=seed)  # fmt: skip
    return table


def _asked(model: HookedVLM, prompt: Any, graph: AttributionGraph) -> ExplainedWord:
    """The word of the graph, in this model."""
    told = graph.about
    if "tokens" not in told:
        raise ArgumentError(
            "This graph does not say which word it explains: give what mm.attribution_graph(...)"
            " or AttributionGraph.load(...) returned."
        )
    of, *minus = told["tokens"]
    if not same_state(told, about(model)):
        raise ArgumentError(
            f"This graph was made with other edits or dictionaries than {model.name!r} has now:"
            " give the model of which it was made, or make one with mm.attribution_graph(...)."
        )
    asked = ExplainedWord(model, prompt, of, told["after"], *minus)
    then = float(graph.nodes["value"][graph.nodes["kind"] == "word"].iloc[0])
    if abs(asked.whole - then) > 1e-2 * max(1.0, abs(then)):
        raise ArgumentError(
            f"This graph explains {then:.4g} of {asked.word!r}, and here it is {asked.whole:.4g}:"
            " give the prompt and the model of which it was made."
        )
    return asked


def _silent(model: HookedVLM, node: dict[str, Any]) -> Edit:
    """The edit that silences a node."""
    neuron: Neuron | None = node["neuron"]
    if node["kind"] == UNIT and neuron is not None:
        return Edit(_site(model, neuron).name, 0.0, neuron, pos=node["pos"])
    owner, layer = str(node["node"]).split(".error ")[0].rsplit(".L", 1)
    return Edit(f"{owner}_error", 0.0, layer=int(layer), pos=node["pos"])


def _site(model: HookedVLM, neuron: Neuron) -> Site:
    return readouts.unit_site(model, neuron)


Other = tuple[Neuron, Any, float] | None


def _as_active(
    model: HookedVLM,
    asked: ExplainedWord,
    graph: AttributionGraph,
    chosen: list[dict[str, Any]],
    rng: np.random.Generator,
) -> list[Other]:
    """For each unit another of its layer and position that is no node, as active; or None."""
    units = graph.nodes[graph.nodes["kind"] == UNIT]
    taken = set(zip(units["neuron"], units["pos"], strict=True))
    names = {one["neuron"]: _site(model, one["neuron"]).at(one["neuron"].layer)
             for one in chosen if one["kind"] == UNIT}  # fmt: skip
    with torch.no_grad(), capture(model, dict.fromkeys(names.values())) as kept:
        model.run(asked.soft)
    found: list[Other] = []
    for one in chosen:
        neuron = one["neuron"]
        if one["kind"] != UNIT:
            found.append(None)
            continue
        pos = one["pos"]
        at = next((crop, row.index(pos)) for crop, row in enumerate(_labels(model, asked, neuron))
                  if pos in row)  # fmt: skip
        values = kept[names[neuron]][at].double()
        gap = torch.where(values != 0, (values.abs() - abs(one["value"])).abs(), torch.inf)
        order = gap.argsort()[: int(torch.isfinite(gap).sum())].tolist()
        others = (Neuron(neuron.layer, unit, neuron.tower) for unit in order)
        free = [(other, pos, float(values[other.unit])) for other in others
                if (other, pos) not in taken][:NEAR]  # fmt: skip
        drawn = free[int(rng.integers(len(free)))] if free else None
        if drawn is not None:
            taken.add(drawn[:2])
        found.append(drawn)
    return found


def _labels(model: HookedVLM, asked: ExplainedWord, neuron: Neuron) -> Any:
    site = _site(model, neuron)
    if site.tower == LM:
        return asked.soft.labels
    return model.picture_rows(asked.soft.prompts, site, neuron.layer)


def _summary(table: Any, seed: int) -> pd.DataFrame:
    """Correlation and means, with intervals."""
    import pandas as pd

    of_graph, random = (table[table["arm"] == arm] for arm in ("graph", "random"))
    both = of_graph[["effect", "ablation"]].to_numpy(float)
    rows: dict[str, Any] = {"correlation": (*correlation(both, seed), len(both))}
    pairs = of_graph.merge(random, on="node", suffixes=("", "_random"))
    sizes = pairs[["ablation", "ablation_random"]].abs().to_numpy(float)
    if len(sizes):
        sizes = np.column_stack([sizes, sizes[:, 0] - sizes[:, 1]])
        means = intervals(sizes, draws=DRAWS, seed=seed)
        for name, row in zip(("graph", "random", "difference"), means, strict=True):
            rows[name] = (*row.tolist(), len(sizes))
    columns: Any = ["value", "low", "high", "n"]
    return pd.DataFrame(list(rows.values()), index=list(rows), columns=columns)


def correlation(pairs: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Pearson's correlation of two columns, with the interval of pairs drawn with replacement.

    NaN where a column is constant, and no interval of fewer than four pairs.
    """
    whole = _pearson(pairs[None])[0]
    if len(pairs) < 4 or not np.isfinite(whole):
        return float(whole), np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(pairs), size=(DRAWS, len(pairs)))
    drawn = _pearson(pairs[draws])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return float(whole), float(low), float(high)


def _pearson(pairs: np.ndarray) -> np.ndarray:
    """The correlation of each of several sets of pairs Float[set, pair, 2]."""
    if not pairs.shape[1]:
        return np.full(len(pairs), np.nan)
    off = pairs - pairs.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (off[..., 0] * off[..., 1]).sum(1) / np.sqrt((off**2).sum(1).prod(-1))
