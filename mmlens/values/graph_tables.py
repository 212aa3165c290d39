"""An attribution graph: nodes of one run, and what each directly gives to each later one.

    found = attribution_graph(model, prompt, " dog", after=" a")
    found.edges                      # source, target, score: what enters a node sums to its value
    found.nodes                      # node, kind, neuron, pos, value, influence, effect
    found.completeness               # the share of influence that goes back to patches and words
    found.pruned(nodes=0.5)          # a smaller one
    found.save("runs/dog")           # nodes.csv, edges.csv, about.json

Kinds of nodes: the "word", which is the end; a "unit" at a position; the "error" of a dictionary at
a position; an "input", which is a patch or a word of the prompt; the "biases"; and "left out", for
all units that are no nodes, so that sums stay exact whatever is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmlens.values.arguments import number
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import CheckpointError, writing
from mmlens.values.graph_flow import Flow, flow, most_of
from mmlens.values.packed_labels import pack_labels, unpack_labels
from mmlens.values.whole_files import write_whole

WORD, UNIT, ERROR, INPUT, BIASES, LEFT_OUT = "word", "unit", "error", "input", "biases", "left out"
_GO = (UNIT, ERROR, INPUT)
KINDS = (INPUT, ERROR, BIASES, LEFT_OUT)
"""Kinds of nodes at which paths begin."""
NODES = ["node", "kind", "neuron", "pos", "stage", "value", "influence", "effect", "words"]
EDGES = ["source", "target", "score", "size", "influence"]


@dataclass(frozen=True, eq=False)
class AttributionGraph:
    """Nodes and direct edges of one run, down to one number.

    Attributes:
        nodes: a table: node (its name), kind, neuron (a Neuron, or None), pos (its label), stage
            (its place in the order in which the model runs), value (a unit's activation, the word's
            logit), influence (the share of all paths to the word that pass it, by size), effect
            (what the word loses without it, along the paths in the graph), words (what a unit
            decodes to).
        edges: a table: source, target (names), score (what the source gives to the target's value),
            size (|score|; of what is left out the sum of sizes; of biases 0), influence.
        about: how it was made.
    """

    nodes: Any
    edges: Any
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def completeness(self) -> float:
        """The share of influence, 0 to 1, that paths through the nodes carry back to the inputs.

        The rest ends in errors of dictionaries, and in what was left out.
        """
        return float(self.ends()["influence"][INPUT])

    def ends(self) -> Any:
        """Where paths begin, by kind: influence sums to 1, and effect to the word's number."""
        found = self.nodes.groupby("kind")[["influence", "effect"]].sum()
        return found.reindex(list(KINDS), fill_value=0.0)

    def units(self) -> Any:
        """The nodes that are units, those of most influence first."""
        found = self.nodes[self.nodes["kind"] == UNIT]
        return found.sort_values("influence", ascending=False, kind="stable", ignore_index=True)

    def pruned(self, nodes: float = 1.0, edges: float = 1.0) -> AttributionGraph:
        """The graph with fewer nodes and edges; what goes joins "left out".

        Args:
            nodes: the share of the influence of units and errors that is kept, 0 to 1: the fewest
                that have it.
            edges: of the edges between those that are left, the same.
        """
        nodes = number(nodes, "nodes", least=0, most=1)
        edges = number(edges, "edges", least=0, most=1)
        table = self.nodes
        inner = table["kind"].isin([UNIT, ERROR]).to_numpy()
        kept = ~inner
        kept[inner] = most_of(table["influence"].to_numpy()[inner], nodes)
        names = set(table["node"][kept])
        first = self._with(self.edges["source"].isin(names).to_numpy(), names)
        return first._fewer_edges(edges)._without_loose_ends()

    def _fewer_edges(self, share: float) -> AttributionGraph:
        loose = self.edges["source"].isin([BIASES, LEFT_OUT]).to_numpy()
        kept = loose.copy()
        kept[~loose] = most_of(self.edges["influence"].to_numpy()[~loose], share)
        return self._with(kept, set(self.nodes["node"]))

    def _without_loose_ends(self) -> AttributionGraph:
        """Without nodes that lead nowhere."""
        graph = self
        while True:
            going = set(graph.edges["source"])
            still = graph.nodes["node"].isin(going) | ~graph.nodes["kind"].isin(_GO)
            if still.all():
                return graph
            names = set(graph.nodes["node"][still])
            graph = graph._with(graph.edges["source"].isin(names).to_numpy(), names)

    def _with(self, kept: np.ndarray, names: set[str]) -> AttributionGraph:
        """These nodes and edges; edges that go are added to what is left out of their targets."""
        import pandas as pd

        there = self.edges[self.edges["target"].isin(names)]
        kept = kept[self.edges["target"].isin(names).to_numpy()]
        stay, gone = there[kept], there[~kept]
        lost = gone.assign(source=LEFT_OUT)
        edges = pd.concat([stay, lost[lost["size"] > 0]], ignore_index=True)
        edges = edges.groupby(["source", "target"], sort=False, as_index=False).sum()
        nodes = self.nodes[self.nodes["node"].isin(names | {BIASES, LEFT_OUT})]
        return replace(self, nodes=nodes, edges=edges).measured()

    def measured(self) -> AttributionGraph:
        """The same nodes and edges, with influence and effect computed anew."""
        nodes, edges = self.nodes.reset_index(drop=True), self.edges.reset_index(drop=True)
        found = self._flow(nodes, edges)
        nodes = nodes.assign(influence=found.influence, effect=found.effect)
        return replace(self, nodes=nodes, edges=edges.assign(influence=found.through))

    @staticmethod
    def _flow(nodes: Any, edges: Any) -> Flow:
        number_of = {name: i for i, name in enumerate(nodes["node"])}
        source, target = (edges[end].map(number_of).to_numpy(int) for end in ("source", "target"))
        end = int(np.flatnonzero((nodes["kind"] == WORD).to_numpy())[0])
        score, size = edges["score"].to_numpy(float), edges["size"].to_numpy(float)
        bare = np.bincount(target, size, len(nodes))[target] == 0  # fed by biases alone
        return flow(source, target, score, np.where(bare, np.abs(score), size),
                    nodes["stage"].to_numpy(int), end)  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write a folder with nodes.csv, edges.csv and about.json; returns it.

        Raises:
            WriteError: it cannot be written.
        """
        folder = path_of(path, "path")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        labels = {name: pack_labels(tuple(self.nodes[name])) for name in ("neuron", "pos")}
        told = {"about": dict(self.about), "labels": labels}
        write_whole(folder / "nodes.csv", self.nodes.to_csv(index=False))
        write_whole(folder / "edges.csv", self.edges.to_csv(index=False))
        write_whole(folder / "about.json", json.dumps(told, default=str, indent=1))
        return folder

    @classmethod
    def load(cls, path: str | Path) -> AttributionGraph:
        """What `save` wrote.

        Raises:
            CheckpointError: a file is missing, or not one that `save` wrote.
        """
        import pandas as pd

        folder = path_of(path, "path")
        try:
            told = json.loads((folder / "about.json").read_text("utf-8"))
            nodes, edges = (  # an empty text is a text
                pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
                for name in ("nodes", "edges")
            )
            nodes["value"] = [float(one or "nan") for one in nodes["value"].astype(str)]
            for name in ("neuron", "pos"):
                labels = unpack_labels(told["labels"][name])
                nodes[name] = pd.Series(list(labels or ()), index=nodes.index, dtype=object)
            return cls(nodes[NODES], edges[EDGES], told["about"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{str(path)!r} does not hold a saved AttributionGraph ({error})."
            ) from error

    def __repr__(self) -> str:
        n = self.nodes["kind"].value_counts()
        kinds = ", ".join(f"{n[kind]} {kind}s" for kind in (UNIT, ERROR, INPUT) if kind in n)
        kinds = kinds or "no nodes"
        return (
            f"AttributionGraph({kinds}; {len(self.edges)} edges; complete {self.completeness:.2f})"
        )
