"""Claims about circuits and graphs, each judged from one table.

V1 needed      without the circuit the word loses more than without others of its layers
V2 enough      with the circuit alone it keeps more than with others alone
V3 more        it needs the circuit more than as many units that `attribute` puts first
G1 true        what a graph says of its nodes is what silencing them does
G2 chosen      its units do more than others that are as active
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.circuits.questions import graphs, pruning
from mmlens.papers.circuits.questions.graphs import AS_ACTIVE, GRAPH, NODE, SHUFFLED
from mmlens.papers.circuits.questions.pruning import CIRCUIT, FIRST, FIRST_OTHERS, OTHERS
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.contests import Contest
from mmlens.papers.interval_plots import strips
from mmlens.papers.study_folder import above, by_arm, together, told_interval
from mmlens.papers.study_report import Part

CLAIMS = {
    "V1": "The word needs the circuit",
    "V2": "The circuit alone keeps the word",
    "V3": "The word needs it more than the units that are attributed to it first",
    "G1": "A graph says of its nodes what silencing them does",
    "G2": "Its units do more than others that are as active",
}
TITLES = {
    "V1": "Is the circuit needed?",
    "V2": "Is the circuit enough?",
    "V3": "More than the first by attribution?",
    "G1": "Does silencing do what the graph says?",
    "G2": "More than units as active?",
}
CLA = "Rajaram et al. (2024), arXiv:2404.14349"
GRAPHS = "Ameisen et al. (2025), Circuit Tracing"
HOW = {
    "V1": "The circuit of the picture's noun is silenced at all positions, and so are as many"
    f" others of the same layers. “{FIRST}” are as many units that gradient x activation puts"
    " first, whatever their layers.",
    "V2": "All units but the circuit are silenced, and all but as many others of the same layers.",
    "V3": "The circuit is silenced, and as many units of the highest gradient x activation. The"
    " paper does not ask this: it says whether following layers back is worth its cost.",
    "G1": "The rank correlation, picture by picture, of what the graph says that a node gives to"
    " the word's logit with what the logit loses where it is silenced; for comparison effects are"
    " dealt anew among the nodes.",
    "G2": "What silencing a unit of the graph takes or adds, as a share of the word's logit, and"
    " what silencing another of its layer at its position does that is about as active.",
}
RULES = {
    "V1": f"it holds if the interval of ({CIRCUIT} - {OTHERS}) of the share lost, at the largest k,"
    " lies above 0, and fails if it lies below.",
    "V2": f"it holds if the interval of ({CIRCUIT} - {OTHERS}) of the share kept, at the largest k,"
    " lies above 0, and fails if it lies below.",
    "V3": f"it holds if the interval of ({CIRCUIT} - {FIRST}) of the share lost, at the largest k,"
    " lies above 0, and fails if it lies below.",
    "G1": f"it holds if the intervals of the correlation and of ({GRAPH} - {SHUFFLED}) lie above 0,"
    " and fails if one lies below.",
    "G2": f"it holds if the interval of ({NODE} - {AS_ACTIVE}) lies above 0, and fails if it lies"
    " below.",
}
PAIRED = {"V1": OTHERS, "V2": OTHERS, "V3": FIRST}
RANGES = {"spearman": (-1.0, 1.0), "completeness": (0.0, 1.0)}


def circuit_part(key: str, found: pd.DataFrame) -> Part:
    """V1, V2 or V3.

    Args:
        found: the summary of `pruned_circuit`.
    """
    metric = "kept" if key == "V2" else "lost"
    rows: Any = found[found["metric"] == metric]
    ks = sorted({int(k) for k in rows["k"]})
    other = PAIRED[key]
    at = {(str(row["arm"]), int(row["k"])): row for row in rows.to_dict("records")}
    if (f"{CIRCUIT} - {other}", ks[-1]) not in at:
        lacking = f"Not measured: a layer has too few units for as many others (k={ks[-1]})."
        return _part(key, lacking, None)
    own, beside, gap = (at[arm, ks[-1]] for arm in (CIRCUIT, other, f"{CIRCUIT} - {other}"))
    how = "With {0} alone {1}" if key == "V2" else "Without {0} {1}"
    told = how.format(f"the circuit ({ks[-1]} units of each layer)", told_interval(own))
    says = (
        f"{told} of the noun's probability are {metric}, with{'' if key == 'V2' else 'out'}"
        f" {'as many that are ' if key == 'V3' else ''}{other} {told_interval(beside)}: a"
        f" difference of {told_interval(gap)}, in {gap['n']} pictures."
    )
    arms = [CIRCUIT, other] if key == "V3" else [CIRCUIT, OTHERS, FIRST, FIRST_OTHERS]
    gaps = [f"{one} - {two}" for one, two in zip(arms[::2], arms[1::2], strict=True)]
    lines = [Row(f"{arm}, k = {k}", told_interval(at[arm, k]))
             for arm in (*arms, *gaps) for k in ks if (arm, k) in at]  # fmt: skip
    more: dict[str, Any] = {"rows": lines, "summary": rows}
    if key != "V3":
        shown = rows.assign(panel=[f"k = {k}" for k in rows["k"]])
        name = f"{metric.capitalize()} of the noun's probability"
        named = {arm: arm for arm in arms}
        more["draw"] = partial(strips, shown, named, name, "with 95 % intervals",
                               panels=[f"k = {k}" for k in ks])  # fmt: skip
    return _part(key, says, above(gap), **more)


def graph_parts(table: pd.DataFrame, *, draws: int, seed: int) -> list[Part]:
    """G1 and G2.

    Args:
        table: of `graph_nodes`.
    """
    if not bool(np.any(table["skipped"] == "")):
        reasons = "; ".join(sorted(set(table["skipped"])))
        return [_part(key, f"Not measured: {reasons}", None) for key in ("G1", "G2")]
    how: dict[str, Any] = {"ranges": RANGES, "draws": draws, "seed": seed}
    whole: Any = summarise(graphs.completeness(table), ["arm", "metric"], **how)
    share = whole.to_dict("records")[0]
    return [_agrees(table, share, how), _chosen(table, how)]


def _agrees(table: pd.DataFrame, share: dict[str, Any], how: dict[str, Any]) -> Part:
    """G1."""
    rows = graphs.agreements(table, how["seed"])
    if not len(rows):
        return _part("G1", "Not measured: no graph has three nodes.", None)
    found: Any = summarise(with_differences(rows, (GRAPH, SHUFFLED)), ["arm", "metric"], **how)
    by = by_arm(found)
    own, dealt, gap = (by[arm] for arm in (GRAPH, SHUFFLED, f"{GRAPH} - {SHUFFLED}"))
    says = (
        f"The rank correlation of what the graph says and what silencing does is"
        f" {told_interval(own)}, of shuffled nodes {told_interval(dealt)}, in {own['n']} pictures;"
        f" the graphs are complete to {told_interval(share)}."
    )
    told = [Row(arm, told_interval(row)) for arm, row in by.items()]
    told.append(Row("completeness", told_interval(share)))
    return _part("G1", says, together(above(own), above(gap)), rows=told, summary=found)


def _chosen(table: pd.DataFrame, how: dict[str, Any]) -> Part:
    """G2."""
    rows = graphs.taken(table)
    if not len(rows):
        return _part("G2", "Not measured: no unit of a graph has another that is as active.", None)
    found: Any = summarise(with_differences(rows, (NODE, AS_ACTIVE)), ["arm", "metric"], **how)
    by = by_arm(found)
    own, other, gap = (by[arm] for arm in (NODE, AS_ACTIVE, f"{NODE} - {AS_ACTIVE}"))
    says = (
        f"Silencing a unit of the graph moves the logit by {told_interval(own, 3)} of itself, one"
        f" as active by {told_interval(other, 3)}: a difference of {told_interval(gap, 3)}, in"
        f" {gap['n']} pictures."
    )
    told = [Row(arm, told_interval(row, 3)) for arm, row in by.items()]
    return _part("G2", says, above(gap), rows=told, summary=found)


def contests(found: pd.DataFrame, table: pd.DataFrame) -> list[Contest]:
    """The circuit and attribution against others of their layers; a graph's units against others.

    Args:
        found: the summary of `pruned_circuit`. table: of `graph_nodes`.
    """
    k = max(map(int, found["k"]))
    here: Any = found[found["k"] == k]
    controls = {CIRCUIT: OTHERS, FIRST: FIRST_OTHERS}
    controls = {own: other for own, other in controls.items()
                if f"{own} - {other}" in set(here["arm"])}  # fmt: skip
    metrics: Any = here["metric"]
    told = f"the share of the noun's probability that is {{}} {k} units of each layer"
    made = [
        Contest(question, told.format(what), here[metrics == metric], controls,
                control="others of their layers")
        for question, what, metric in (
            ("Which neurons does a word need?", "lost without", "lost"),
            ("Which neurons keep a word alone?", "kept with nothing but", "kept"),
        ) if controls
    ]  # fmt: skip
    rows: Any = graphs.taken(table) if bool(np.any(table["skipped"] == "")) else table[:0]
    if len(rows):
        question = "Which neurons at which positions does a word need?"
        told = "the share of the word's logit that silencing one moves"
        made.append(Contest(question, told, rows, {NODE: AS_ACTIVE}))
    return made


def _part(key: str, says: str, holds: bool | None, **more: Any) -> Part:
    verdict = Verdict(key, CLAIMS[key], holds, says)
    source = CLA if key[0] == "V" else GRAPHS
    return Part(key, TITLES[key], f"{source}. {HOW[key]}", says, verdict, RULES[key], **more)


def circuit_parts(table: pd.DataFrame, **how: Any) -> tuple[list[Part], pd.DataFrame]:
    """V1 to V3, and the summary that they are judged from.

    Args:
        table: of `pruned_circuit`.
    """
    found = pruning.summary(table, **how)
    return [circuit_part(key, found) for key in PAIRED], found
