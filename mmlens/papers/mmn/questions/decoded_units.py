"""The top units of a picture, decoded (the question of E1, E4 and E6), and rankings of units.

MMN 2.2 and S.6: for each picture the 100 (unit, patch) pairs of highest g[k, c] (eq. 2), decoded
to 10 tokens; units whose tokens are words are interpretable. A unit may occur on several patches,
so there are fewer units than pairs. For lists of units (ablation) the paper gives no rule: "pair"
keeps the order of the pairs and drops repeats, which ranks by the largest score over patches
("max"); "sum" ranks by the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.activations import activations
from mmlens.methods.attribute import attribute
from mmlens.methods.decode import decode, sign_of
from mmlens.methods.top_neurons import top_neurons
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Explained, Rule
from mmlens.papers.tables import UNNAMED, ExperimentError
from mmlens.values.labels import Neuron, Patch
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = (
    "rank", "neuron", "patch", "score", "sign", "words", "interpretable", "caption", "noun",
)  # fmt: skip


def top_units(
    model: HookedVLM,
    sample: Sample,
    *,
    k: int = 100,
    point: str = "pre",
    target: str = "logit",
    rank_by: str = "pair",
    gain: bool = False,
    tokens: int = 10,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The `k` pairs of highest score for the first noun of the caption, and what their units say.

    Args:
        k: how many pairs (with `rank_by` "max" or "sum": units).
        point, target, rank_by: as in `attribute` and `top_neurons`.
        gain: decode with the final norm's gain (the paper names no norm).
        tokens: how many decoded tokens are kept.
        prompt, noun, max_new_tokens: see `explained`.

    Returns:
        rank (from 0), neuron, patch (None with "sum"), score, sign (-1: the words are those of a
        negative activation; gated MLPs only), words (list), interpretable, caption, noun, skipped,
        options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    best = top_neurons(
        scored(model, seen, point, target), k, rank_by=rank_by, active=signs(model, seen, rank_by)
    )
    said = decode(model, best, tokens, gain=gain).drop(columns="probs")
    table = with_words(best, said)
    table = table.assign(rank=range(len(table)), caption=seen.caption, noun=seen.noun)
    return asked.answered(table.reindex(columns=list(COLUMNS)))


def signs(model: HookedVLM, seen: Explained, rank_by: str = "pair") -> Scores | None:
    """The activations that say at which end a unit speaks: of gated MLPs, where half are negative.

    Elsewhere the paper's reading holds, the output row as it stands; a "sum" has no one activation.
    """
    gated = any(one.gated for one in model.lm.units.layers)
    return activations(model, seen.soft, "neurons") if gated and rank_by != "sum" else None


def with_words(best: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """A table of units with what each says, at the sign of its activation where that is known."""
    active = best["active"] if "active" in best.columns else [1.0] * len(best)
    rows = best.assign(sign=[sign_of(value) for value in active])
    return rows.merge(said, on=["neuron", "sign"], how="left")


def scored(model: HookedVLM, seen: Explained, point: str = "pre", target: str = "logit") -> Scores:
    """Gradient x activation of the explained token: Scores(layer, pos, unit), one backward pass."""
    return attribute(model, seen.soft, seen.token, after="", point=point, target=target)


def ranked(scores: Scores, rank_by: str = "pair", pos: Any = Patch) -> torch.Tensor:
    """All units, the highest first: Long[layer * unit], a unit's number being layer * units + unit.

    Args:
        rank_by: "pair" or "max" (largest score over the positions), or "sum".
        pos: the positions that count, as in `Scores.sel`.
    """
    if rank_by not in ("pair", "max", "sum"):
        raise ExperimentError(f"There is no ranking {rank_by!r}: write 'pair', 'max' or 'sum'.")
    chosen = scores.sel(pos=pos)
    if "pos" in chosen.axes:
        chosen = chosen.sum("pos") if rank_by == "sum" else chosen.max("pos")
    return chosen.values.flatten().argsort(descending=True, stable=True).cpu()


def neurons_of(model: HookedVLM, numbers: torch.Tensor) -> list[Neuron]:
    """The neurons behind numbers layer * units + unit."""
    return [Neuron(*divmod(number, model.cfg.d_mlp)) for number in numbers.tolist()]


def numbers_of(model: HookedVLM, neurons: Sequence[Neuron]) -> torch.Tensor:
    """Long[neuron]: layer * units + unit."""
    return torch.tensor([n.layer * model.cfg.d_mlp + n.unit for n in neurons], dtype=torch.long)


def interpretable_first(
    model: HookedVLM, order: torch.Tensor, need: int, gain: bool = False, block: int = 1024
) -> torch.Tensor:
    """The first `need` interpretable units of an order (or all there are), block by block."""
    found: list[torch.Tensor] = []
    for part in order.split(block):
        said = decode(model, neurons_of(model, part), gain=gain)
        found.append(part[torch.tensor(said["interpretable"].tolist(), dtype=torch.bool)])
        if sum(map(len, found)) >= need:
            break
    return torch.cat(found)[:need] if found else order[:0]


def partners(
    model: HookedVLM, numbers: torch.Tensor, shuffled: torch.Tensor, *, others: bool = True
) -> torch.Tensor | None:
    """For each unit a random one of its layer, all different: Long[unit], in the same order.

    Args:
        numbers: different units.
        shuffled: Long[layer, unit], an order of the units of every layer (`shuffle`).
        others: draw only units that are not among `numbers`.

    Returns:
        None where a layer has too few others.
    """
    width = model.cfg.d_mlp
    layers = numbers // width
    out = torch.empty_like(numbers)
    for layer in layers.unique().tolist():
        here = layers == layer
        pool = shuffled[layer] + layer * width
        pool = pool[~torch.isin(pool, numbers[here])] if others else pool
        if len(pool) < int(here.sum()):
            return None
        out[here] = pool[: int(here.sum())]
    return out


def shuffle(model: HookedVLM, random: torch.Generator) -> torch.Tensor:
    """Long[layer, unit]: the units of every layer in random order."""
    rows = range(model.cfg.n_layers)
    return torch.stack([torch.randperm(model.cfg.d_mlp, generator=random) for _ in rows])
