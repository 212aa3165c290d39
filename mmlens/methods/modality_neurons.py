"""Modality-specific neurons: units that matter at the picture's positions, or at those of words.

Huang et al. (2024, "MINER: Mining the Underlying Pattern of Modality-Specific Neurons in Multimodal
Large Language Models", section 3). With m the positions of one modality in a prompt, a the
activations there, and A the attention pattern of the layer, averaged over heads and cut to m x m:

    prob       share of m where a > 0           mean, max    of a over m
    attended   sum over t of (sum_q A[q, t]) a[t]      at positions that others of m attend to
    attending  sum over t of (sum_k A[t, k]) a[t]      at positions that attend to others of m

Each is averaged over prompts and, per modality and layer, put on a scale from 0 to 1
(`modality_importance`); their weighted mean ranks the units, and `select` says how many come from
where (`modality_neurons`). The paper's A is a softmax without the causal mask, to which a second
softmax is applied; here it is the pattern of the model.

That a list of "picture units" does something to pictures is not said by the ranking: units that are
strong at all positions come first for every modality. The column `both` tells which ones do. The
control is what as many units of the same layers do (`ablation_curve`).

Positions: by modality. Path: none; what is measured is activity, and not an effect.

    found = modality_importance(model, prompts)      # Scores(metric, modality, layer, unit)
    modality_neurons(found, 100)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.jacobian_lens import prompts_in
from mmlens.methods.text_neurons import minmax
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, count, instance, number, several
from mmlens.values.errors import AddressError, ArgumentError, PromptError
from mmlens.values.labels import Marker, Neuron, Patch, Token
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

METRICS = ("prob", "mean", "max", "attended", "attending")
PAPER = {"mean": 0.25, "max": 0.25, "attended": 0.5}
"""The weights of the paper."""
SELECT = ("modality", "uniform", "layer", "adaptive")
MODALITIES: dict[str, Any] = {"picture": (Patch, Marker), "words": Token}


@needs("neurons")
def modality_importance(
    model: HookedVLM,
    prompts: Any,
    modalities: Mapping[str, Any] | None = None,
    *,
    metrics: Sequence[str] = METRICS,
    progress: Progress | bool | None = None,
) -> Scores:
    """How much each unit matters at the positions of each modality, by five measures from 0 to 1.

    Args:
        prompts: in which all modalities occur, if not all in one; a prompt counts for those it has.
        modalities: their positions by name, as in `Scores.sel`; by default the picture's (patches,
            queries, newlines) and the words.
        metrics: some of `METRICS`; "attended" and "attending" read attention patterns.
        progress: as in `patch`, prompt by prompt.

    Returns:
        Scores(metric, modality, layer, unit).

    Raises:
        PromptError: a modality has no position in any prompt.
        CapabilityError: the model holds no pattern. ArgumentError: no such measure.
    """
    names = [choice(name, "metrics", METRICS) for name in several(metrics, "metrics")]
    wanted = instance(MODALITIES if modalities is None else modalities, "modalities", Mapping,
                      "a mapping, {'picture': Patch, ...}")  # fmt: skip
    if not wanted:
        raise ArgumentError("There is no modality to measure: write {'picture': Patch, ...}.")
    model.lm.units.need(model.name)
    attends = any(name.startswith("attend") for name in names)
    if attends:
        hooking.check_places(model, SITES["pattern"], list(range(model.cfg.n_layers)))
    totals: dict[str, Tensor] = {}
    seen = dict.fromkeys(wanted, 0)
    for prompt in tracked(prompts_in(prompts), "modalities", progress):
        soft = one(model, prompt)
        where = {name: _there(soft.labels[0], at) for name, at in wanted.items()}
        for name, found in _measured(model, soft, where, names, attends).items():
            totals[name] = totals[name] + found if seen[name] else found
            seen[name] += 1
    for name, n in seen.items():
        if not n:
            raise PromptError(
                f"No prompt has a position of the modality {name!r}: add one that has."
            )
    values = torch.stack([minmax(totals[name] / n) for name, n in seen.items()], 1)
    told = about(model, method="modality_importance", prompts=max(seen.values()))
    labels = {"metric": tuple(names), "modality": tuple(wanted),
              "layer": tuple(range(model.cfg.n_layers))}  # fmt: skip
    return Scores(values.float(), ("metric", "modality", "layer", "unit"), labels, told)


def _there(labels: Sequence[Any], wanted: Any) -> list[int]:
    """The positions of a modality in a prompt; of a kind of label there may be none."""
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    if kinds and all(isinstance(kind, type) for kind in kinds):
        return [at for at, label in enumerate(labels) if isinstance(label, kinds)]
    return places(labels, wanted, "pos")


def _measured(
    model: HookedVLM,
    soft: Any,
    where: Mapping[str, list[int]],
    names: Sequence[str],
    attends: bool,
) -> dict[str, Float[Tensor, "metric layer unit"]]:
    """The measures at the positions of every modality that this prompt has."""
    layers = range(model.cfg.n_layers)
    units = [SITES["neurons"].at(layer) for layer in layers]
    patterns = [SITES["pattern"].at(layer) for layer in layers] if attends else []
    reduce = lambda x: x[0].detach().mean(0) if x.ndim == 4 else x[0].detach()  # noqa: E731
    with torch.no_grad(), capture(model, [*units, *patterns], reduce) as kept:
        model.run(soft)
    found = {}
    for name, at in where.items():
        if at:
            each = [
                measures(
                    finite(kept[units[layer]][at].double(), f"the units of layer {layer}"),
                    kept[patterns[layer]][at][:, at].double() if attends else None,
                )
                for layer in layers
            ]
            found[name] = torch.stack([torch.stack([one[m] for one in each]) for m in names])
    return found


def measures(
    active: Float[Tensor, "pos unit"], pattern: Float[Tensor, "pos pos"] | None
) -> dict[str, Float[Tensor, " unit"]]:
    """The measures of the units of a layer at the positions of one modality.

    Args:
        pattern: attention among these positions, query by key, averaged over heads.
    """
    told = {"prob": (active > 0).double().mean(0), "mean": active.mean(0), "max": active.amax(0)}
    if pattern is not None:
        told |= {"attended": pattern.sum(0) @ active, "attending": pattern.sum(1) @ active}
    return told


def modality_neurons(
    scores: Scores,
    k: int = 100,
    *,
    weights: Mapping[str, float] = PAPER,
    select: str = "modality",
) -> pd.DataFrame:
    """The `k` units that matter most for their modality, one row each, by modality.

    Args:
        scores: what `modality_importance` returns.
        weights: of the measures; those of the paper by default.
        k: how many in all; groups of a selection have k divided by their number, rounded down, and
            one at least.
        select: "modality", the first k / M of each of M modalities; "uniform", as many of each
            modality in each layer; "layer", as many of each layer, each to the modality where it is
            strongest; "adaptive", the strongest of all, each to that modality. With the first two a
            unit may be listed for several.

    Returns:
        Columns neuron, modality, score, both (whether it would be listed for another modality too).

    Raises:
        AddressError: other scores, or a measure that they don't have.
    """
    import pandas as pd

    instance(scores, "scores", Scores, "what modality_importance(model, prompts) returns")
    if scores.axes != ("metric", "modality", "layer", "unit"):
        raise AddressError(
            f"{scores!r} has no measures by modality: give what modality_importance(...) returns."
        )
    k, names = count(k, "k"), scores.of("modality")
    mixed = _mixed(scores, weights)
    n, width = len(mixed), mixed.shape[-1]
    chosen = _chosen(mixed, k, choice(select, "select", SELECT))
    flat = mixed.flatten(1)
    listed = chosen if select in ("modality", "uniform") else _chosen(mixed, k, "modality")
    firsts = [{at for own, at in listed if own == here} for here in range(n)]
    rows = [
        (Neuron(scores.of("layer")[at // width], at % width), names[own], float(flat[own, at]),
         any(at in first for other, first in enumerate(firsts) if other != own))
        for own, at in chosen
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["neuron", "modality", "score", "both"])


def _mixed(scores: Scores, weights: Mapping[str, float]) -> Float[Tensor, "modality layer unit"]:
    """The weighted mean of the measures."""
    instance(weights, "weights", Mapping, "a mapping, {'mean': 0.5, ...}")
    known = scores.of("metric")
    each = {name: number(weight, "weights", least=0) for name, weight in weights.items()}
    if missing := [name for name, weight in each.items() if weight and name not in known]:
        raise AddressError(f"There is no measure {missing[0]!r}: these scores have {list(known)}.")
    if not sum(each.values()):
        raise ArgumentError("All weights are 0, which ranks nothing: give one of them more.")
    row = torch.tensor([each.get(name, 0.0) for name in known], dtype=torch.double)
    return torch.einsum("m,mdlu->dlu", row / row.sum(), scores.values.double())


def _chosen(
    mixed: Float[Tensor, "modality layer unit"], k: int, select: str
) -> list[tuple[int, int]]:
    """(modality, unit's number) of the units that are listed, modality by modality."""
    n, layers, width = mixed.shape
    flat, pairs = mixed.flatten(1), []
    first = lambda values, few: values.topk(min(max(1, few), values.shape[-1])).indices  # noqa: E731
    if select == "modality":
        pairs = [(own, at) for own in range(n) for at in first(flat[own], k // n).tolist()]
    elif select == "uniform":
        best = first(mixed, k // (n * layers)) + torch.arange(layers)[:, None] * width
        pairs = [(own, at) for own in range(n) for at in best[own].flatten().tolist()]
    else:
        strongest, owner = flat.max(0)
        by_layer = strongest.view(layers, width)
        if select == "layer":
            best = first(by_layer, k // layers) + torch.arange(layers)[:, None] * width
        else:
            best = first(strongest, k)
        pairs = sorted((int(owner[at]), at) for at in best.flatten().tolist())
    return sorted(pairs, key=lambda pair: (pair[0], -float(flat[pair])))
