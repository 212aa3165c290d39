"""Which units at which positions give a word its logit, and what gives them their activation.

    patches, words  ->  units (and errors of dictionaries)  ->  word

An edge is a direct effect: what one node gives to the value of another through the residual stream
and attention alone, with patterns and norms held and all other nodes constant (`linear_replacement`
has the formula and its sources). What enters a node sums to its value. Nodes are taken up one after
another, from the word back, always the one through which most of what is explained passes (Ameisen
et al. 2025), until a share of it has been followed back to patches and words; what was not followed
is in the graph as "left out", so that the sums stay exact.

    found = attribution_graph(model, prompt, " dog", after=" a")
    view.show(found)
    check_graph(found, model, prompt)            # silences its nodes, and others as active

`neuron_graph` asks another question: all routes from units of the encoder to a neuron, by gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.methods.decode import decode
from mmlens.methods.explained_word import ExplainedWord
from mmlens.methods.followed_back import Followed, followed_back
from mmlens.methods.linear_replacement import Candidates, LinearReplacement
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.progress import Progress
from mmlens.towers.dictionaries.hosting import dictionaries_of
from mmlens.values.arguments import count, number, several
from mmlens.values.errors import SiteError
from mmlens.values.graph_tables import (
    BIASES,
    EDGES,
    ERROR,
    INPUT,
    LEFT_OUT,
    NODES,
    UNIT,
    WORD,
    AttributionGraph,
)
from mmlens.values.labels import LM, Marker, Neuron, Token
from mmlens.values.sites import Site
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

MOST = 1000
"""Nodes: each is a row of a backward pass."""


@needs("logits", "positions")
@ordinary()
def attribution_graph(
    model: HookedVLM,
    prompt: Any,
    of: str | int,
    *,
    minus: str | int | None = None,
    after: str | None = None,
    sites: Sequence[str] | None = None,
    share: float = 0.8,
    edges: float = 0.98,
    k: int = 60,
    progress: Progress | bool | None = None,
) -> AttributionGraph:
    """The nodes and direct edges through which a word gets its logit: an AttributionGraph.

    Args:
        of, minus, after: the word that is explained, as in `attribute`; with `minus` the logit of
            the one less that of the other.
        sites: whose units are nodes: "neurons", "sae", "vision.neurons", "vision.sae" or the hook
            name of one layer. By default those of all dictionaries that are attached, or the
            neurons of the language model. With units of the encoder the patches are its inputs,
            otherwise they are those of the soft prompt.
        share: 0 to 1: nodes are added until this share of influence ends at patches, words or
            errors.
        edges: 0 to 1: the share of the edges' influence that is kept, the largest first.
        k: at most so many units.
        progress: as in `patching.patch`, node by node.

    Raises:
        TargetError: as in `attribute`. SiteError: a site without units at positions.
        CapabilityError: no units there, or a model that is not linear when patterns and norms are
            held: a mixture of experts, a state space.
    """
    k, share = count(k, "k", most=MOST), number(share, "share", least=0, most=1)
    edges = number(edges, "edges", least=0, most=1)
    where = _sites(model, sites)
    asked = ExplainedWord(model, prompt, of, after, minus)
    net = LinearReplacement(model, asked.soft, asked.aimed, where)
    found = followed_back(net, share, k, progress)
    told = about(model, method="attribution_graph", prompt=asked.soft, of=asked.word, after=after,
                 share=share, edges=edges, k=k)  # fmt: skip
    told |= {"sites": [one.name for one in where], "tokens": asked.tokens}
    nodes, table = _tables(model, asked, net, found)
    return AttributionGraph(nodes, table, told).measured().pruned(edges=edges)


def _sites(model: HookedVLM, given: Sequence[str] | None) -> list[Site]:
    """The sites whose units are nodes.

    Raises:
        SiteError: no units at positions there.
    """
    if given is None:
        hosts = [name for name, tower in model.towers.items() if dictionaries_of(tower)]
        given = ["sae" if name == LM else f"{name}.sae" for name in hosts] or ["neurons"]
    sites = list(dict.fromkeys(map(site_of, several(given, "sites", least=1))))
    for one in sites:
        unfit = one.of_dictionary and one.point.rpartition(".")[2] != "hook_acts_post"
        if not one.of_units or one.of_experts or unfit or one.point.endswith("hook_pre"):
            raise SiteError(
                f"{one.name!r} holds no activations of units at positions, which are a graph's"
                " nodes: write sites=['neurons'], 'sae', 'vision.neurons' or 'vision.sae'."
            )
    return sites


def _tables(
    model: HookedVLM, asked: ExplainedWord, net: LinearReplacement, found: Followed
) -> tuple[Any, Any]:
    """Nodes and edges; what comes from candidates that are no nodes is left out."""
    import pandas as pd

    targets, last = np.fromiter(found.rows, int), net.size
    units = np.array([part.kind == UNIT for part in net.parts])
    starts = np.array([part.first for part in net.parts])
    named = _Names(model, asked)
    rows: dict[int, tuple[Any, ...]] = {last: (asked.word, WORD, None, None, len(net.parts))}
    rows |= {at: named(net, at) for at in targets.tolist() if at != last}
    edges: list[tuple[str, str, float, float]] = []
    for target, row in found.rows.items():
        of_unit = units[np.searchsorted(starts, row.source, side="right") - 1]
        here = ~of_unit | np.isin(row.source, targets)
        into, lost = rows[target][0], row.score[~here]
        for source, score in zip(row.source[here].tolist(), row.score[here].tolist(), strict=True):
            if source not in rows:
                rows[source] = named(net, source)
            edges.append((rows[source][0], into, score, abs(score)))
        edges.append((BIASES, into, row.biases, 0.0))
        rest, size = row.rest + float(lost.sum()), row.rest_size + float(np.abs(lost).sum())
        if size:
            edges.append((LEFT_OUT, into, rest, size))
    values = {at: found.rows[at].value if at in found.rows else np.nan for at in rows}
    columns: Any = NODES
    nodes = pd.DataFrame(
        [(*row, values[at], 0.0, 0.0, "") for at, row in rows.items()]
        + [(name, name, None, None, -1, np.nan, 0.0, 0.0, "") for name in (BIASES, LEFT_OUT)],
        columns=columns,
    )
    nodes["words"] = _words(model, list(nodes["neuron"]))
    columns = EDGES
    return nodes, pd.DataFrame([(*one, 0.0) for one in edges], columns=columns)


class _Names:
    """Candidates as rows of the table of nodes: name, kind, neuron, position, stage."""

    def __init__(self, model: HookedVLM, asked: ExplainedWord) -> None:
        self.model, self.soft, self.rows = model, asked.soft, dict[Any, Any]()

    def __call__(self, net: LinearReplacement, at: int) -> tuple[Any, ...]:
        part, (crop, pos, *unit) = net.where(at)
        label = self._label(part, part.crop + crop, pos)
        place, stage = _place(label), net.parts.index(part)
        neuron = Neuron(part.at, unit[0], part.site.owner) if unit else None
        first = {UNIT: str(neuron), ERROR: f"{part.site.owner}.L{part.at}.error", INPUT: ""}
        name = f"{first[part.kind]} {place}".strip()
        return name, part.kind, neuron, label, stage

    def _label(self, part: Candidates, crop: int, pos: int) -> Any:
        if part.site.tower == LM:
            return self.soft.labels[0][pos]
        key = (part.site.name, part.at)
        if key not in self.rows:
            self.rows[key] = self.model.picture_rows(self.soft.prompts, part.site, part.at)
        return self.rows[key][crop][pos]


def _place(label: Any) -> str:
    """A position as part of a name that no other position has."""
    if isinstance(label, Marker):
        places = (("crop", label.crop), ("picture", label.image))
        within = [f" of {what} {n}" for what, n in places if n]
        return f"[{label.name} {label.at}]{''.join(within)}"
    return f"{label.text!r} {label.at}" if isinstance(label, Token) else str(label)


def _words(model: HookedVLM, neurons: list[Any]) -> list[str]:
    """What units of the language model decode to; nothing for others."""
    own = list(dict.fromkeys(one for one in neurons if one and one.tower in (LM, "sae")))
    if not own or not model.can("unembed"):
        return [""] * len(neurons)
    said = decode(model, own)
    known = {
        neuron: " ".join(word.strip() for word in words[:5])
        for neuron, words in zip(said["neuron"], said["words"], strict=True)
    }
    return [known.get(one, "") for one in neurons]
