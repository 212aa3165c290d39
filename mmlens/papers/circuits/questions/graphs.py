"""Does silencing a node take from the word what an attribution graph says it gives?

1. Caption the picture; explain its first noun (`mmn.questions.explained`).
2. Its graph (`attribution_graph`): units at positions, and what each gives to the word's logit.
3. The nodes of most influence are silenced one by one at their positions, and units of the same
   layer and position that are no nodes and about as active (`check_graph`).

Positions: the nodes' own. Path: that of the graph for what is said, all that follows for what is
taken. Patterns and norms are held in what the graph says, and move in what silencing does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.attribution_graph import attribution_graph
from mmlens.methods.check_graph import check_graph
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.tables import UNNAMED, used
from mmlens.runtime.seeding import seed_of
from mmlens.values.errors import CapabilityError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "node", "arm", "effect", "ablation", "completeness", "logit")
GRAPH, SHUFFLED = "graph", "shuffled nodes"
NODE, AS_ACTIVE = "units of the graph", "units as active"
SHUFFLES = 20
"""How often effects are dealt anew among the nodes of a picture."""


def graph_nodes(
    model: HookedVLM,
    sample: Sample,
    *,
    k: int = 60,
    checked: int = 20,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """What the graph says of each of its first nodes, and what silencing it takes.

    Args:
        k: at most so many units in the graph. checked: of which so many are silenced.

    Returns:
        noun, node, arm ("graph", or "random": a unit as active), effect (what the graph says; NaN
        of random ones), ablation (what the logit loses), completeness (of the graph), logit (the
        word's), skipped (why a model has no such graph), options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS, beside=("checked",))
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    try:
        graph = attribution_graph(model, seen.soft, seen.token, after="", k=k, progress=False)
    except CapabilityError as error:  # told in the report: circuits may be there all the same
        return asked.skipped(str(error))
    own = seed_of(seed, sample.id) % 2**31
    table: Any = check_graph(graph, model, seen.soft, k=checked, seed=own, progress=False)
    if not len(table):
        return asked.skipped("the graph has no units")
    logit = float(graph.nodes["value"][graph.nodes["kind"] == "word"].iloc[0])
    table = table.assign(noun=seen.noun, completeness=graph.completeness, logit=logit)
    return asked.answered(table.reindex(columns=list(COLUMNS)))


def agreements(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """By picture, the rank correlation of effect and ablation, and of effects that are dealt anew.

    Returns:
        sample, arm ("graph", "shuffled nodes"), metric "spearman", value; none of pictures with
        fewer than three nodes.
    """
    rows = used(table, "node", "arm", "ablation")
    out = []
    for name, own in rows[rows["arm"] == "graph"].groupby("sample", sort=False):
        said, took = own["effect"].astype(float), own["ablation"].astype(float)
        if len(own) < 3 or said.nunique() < 2 or took.nunique() < 2:
            continue
        random = np.random.default_rng(seed_of(seed, str(name)))
        dealt = [_ranks_alike(random.permutation(said), took) for _ in range(SHUFFLES)]
        out += [(name, GRAPH, _ranks_alike(said, took)), (name, SHUFFLED, float(np.mean(dealt)))]
    return pd.DataFrame(out, columns=["sample", "arm", "value"]).assign(metric="spearman")


def taken(table: pd.DataFrame) -> pd.DataFrame:
    """What silencing takes, or adds, of the logit: of a graph's units, and of units as active.

    Returns:
        sample, arm ("units of the graph", "units as active"), metric "taken", value (|ablation|,
        over |logit| of the word), of the nodes that have such a partner.
    """
    rows = used(table, "node", "arm", "ablation", "logit")
    size = rows["ablation"].astype(float).abs() / rows["logit"].astype(float).abs()
    rows = rows.assign(value=size)
    random = rows[rows["arm"] == "random"]
    paired = rows.merge(random[["sample", "node"]], on=["sample", "node"])
    arm = paired["arm"].map({"graph": NODE, "random": AS_ACTIVE})
    return paired[["sample", "value"]].assign(arm=arm, metric="taken")


def completeness(table: pd.DataFrame) -> pd.DataFrame:
    """Of each picture's graph, the share of influence that goes back to patches and words."""
    rows = used(table, "completeness").drop_duplicates("sample")
    value = rows["completeness"].astype(float)
    return rows[["sample"]].assign(arm=GRAPH, metric="completeness", value=value)


def _ranks_alike(one: Any, other: Any) -> float:
    from scipy.stats import spearmanr

    found: Any = spearmanr(one, other)
    return float(found.statistic)
