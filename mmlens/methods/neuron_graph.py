"""From a word back through the language model's neurons to units of the encoder, as one graph.

    encoder's units  ->  neurons of the language model  ->  word

An edge into the word is gradient x activation of a neuron for its logit; an edge into a neuron is
gradient x activation of the encoder's unit for that neuron's own activation, at the position where
the neuron scores highest, through the projection and all layers between. Each is to first order
what silencing the source takes away, and beside it stands what silencing it did take away: the edge
was checked by doing it. The rows from a unit to the word are all routes between them.

    table = neuron_graph(model, prompt, " dog", after=" a")
    view.show(table)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.attribute import attribute
from mmlens.methods.decode import decode
from mmlens.methods.explained_word import ExplainedWord
from mmlens.methods.over_lists import over_lists
from mmlens.methods.top_neurons import top_neurons
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import one
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.addresses import places
from mmlens.values.arguments import count
from mmlens.values.edit import Edit
from mmlens.values.errors import AddressError
from mmlens.values.labels import LM, Neuron, Patch
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

FEATURES = "features"
MOST = 100
"""Neurons, and units of each: every edge is a forward pass."""
COLUMNS = ["source", "target", "pos", "score", "ablation"]
_Edge = tuple[Any, Any, Any, torch.Tensor, Callable[[], float]]
"""Source, target, position, score, and what silencing the source takes from the target."""
_UNITS = re.compile(r"blocks\.(\d+)\.mlp\.hook_post")


@needs("logits", "neurons", "pictures", "positions")
@over_lists
def neuron_graph(
    model: HookedVLM,
    prompt: Any,
    of: str | int,
    *,
    after: str | None = None,
    neurons: Sequence[Neuron] | None = None,
    k: int = 5,
    units: int = 5,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Edges from units of the encoder over neurons to a word: source, target, pos, score, ablation.

    Args:
        prompt, of, after: the word that is explained, as in `attribute`; of several prompts or
            words the table has a column `prompt` or `token`.
        neurons: of the language model; None for the `k` of highest score at the picture.
        units: of the encoder, as many per neuron: those of largest score, of either sign. What
            counts as a unit is a dimension of what the projection reads.
        progress: as in `patching.patch`, edge by edge.

    Returns:
        Per edge: source and target (a Neuron, "features 17" for a unit that is in no MLP, the
        word), the position at which the neuron is read, the attribution, and how much less of the
        target's activation (logit) there was with the source silenced. `attrs["words"]`: what the
        neurons decode to.

    Raises:
        TargetError: as in `attribute`. AddressError: a neuron of another tower.
    """
    n_units, k = count(units, "units", most=MOST), count(k, "k", most=MOST)
    graph = _Graph(model, prompt, of, after)
    scores = attribute(model, prompt, of, after=after, point="post")
    seen = graph.at_picture()
    at_picture = scores.sel(pos=seen)
    if neurons is None:
        chosen = list(top_neurons(scores, k, pos=seen, rank_by="max")["neuron"])
    else:
        chosen = [_checked(one) for one in units_in(neurons, "neurons", Neuron, least=1)]
    edges: list[_Edge] = []
    every: list[int] = []
    for neuron in chosen:
        best = at_picture.sel(neuron)
        pos = best.of("pos")[int(best.values.argmax())]
        cut = Edit("neurons", 0.0, neuron, pos=pos)
        edges.append((neuron, graph.word, pos, best.values.max(), partial(graph.without, cut)))
        fed = graph.feeding(neuron, pos)
        top = fed.abs().topk(min(n_units, len(fed))).indices.tolist()
        every += top
        edges += [(unit_label(model, unit), neuron, pos, fed[unit],
                   partial(graph.neuron_without, neuron, pos, unit)) for unit in top]  # fmt: skip
    through = _by_unit(attribute(model, prompt, of, after=after, site=FEATURES))
    edges += [(unit_label(model, unit), graph.word, None, through[unit],
               partial(graph.without, _silent(unit)))
              for unit in dict.fromkeys(every)]  # fmt: skip
    checked = tracked(edges, "neuron_graph", progress)
    rows = [(*at, float(score), without()) for *at, score, without in checked]
    import pandas as pd

    table = pd.DataFrame(rows, columns=COLUMNS)
    said = decode(model, chosen)
    table.attrs["words"] = dict(zip(said["neuron"].map(str), said["words"], strict=True))
    table.attrs["about"] = about(model, method="neuron_graph", prompt=graph.soft, of=graph.word)
    return table


def unit_label(model: HookedVLM, unit: int) -> Any:
    """A dimension of what the projection reads: a Neuron of the encoder where it is one."""
    found = _UNITS.fullmatch(model.vision.feature_layer)
    return Neuron(int(found[1]), unit, "vision") if found else f"features {unit}"


def _by_unit(scores: Scores) -> torch.Tensor:
    """Scores of what the projection reads, over all its patches (and crops): Float[unit]."""
    for axis in scores.axes[:-1]:
        scores = scores.sum(axis)
    return scores.values


def _silent(unit: int) -> Edit:
    return Edit(FEATURES, 0.0, dim=unit)


def _checked(neuron: Neuron) -> Neuron:
    if neuron.tower != LM:
        raise AddressError(f"{neuron} is no neuron of the language model: write Neuron(3, 17).")
    return neuron


class _Graph(ExplainedWord):
    """The word, and what feeds a neuron."""

    def at_picture(self) -> list[Any]:
        """The positions of pictures: patches, or queries where no position is a patch."""
        there = self.soft.is_picture[0].tolist()
        labels = [one for one, yes in zip(self.soft.labels[0], there, strict=True) if yes]
        return [one for one in labels if isinstance(one, Patch)] or labels

    def feeding(self, neuron: Neuron, pos: Any) -> torch.Tensor:
        """Float[unit]: gradient x activation of what the projection reads, for one activation."""
        (at,) = places(self.labels, [pos], "pos")
        found = attribute(self.model, self.prompt, neuron, target=lambda x: x[at], site=FEATURES)
        return _by_unit(found)

    def neuron_without(self, neuron: Neuron, pos: Any, unit: int) -> float:
        """How much less active the neuron is at a position with a unit of the encoder silenced."""
        before, after = (
            self.activation(model, neuron, pos)
            for model in (self.model, self.model.edit(_silent(unit)))
        )
        return before - after

    def activation(self, model: HookedVLM, neuron: Neuron, pos: Any) -> float:
        """The activation of a neuron at one position."""
        (at,) = places(self.labels, [pos], "pos")
        name = SITES["neurons"].at(neuron.layer)
        with torch.no_grad(), capture(model, [name], lambda x: x[0, at, neuron.unit]) as kept:
            model.run(one(model, self.prompt))
        return float(kept[name])
