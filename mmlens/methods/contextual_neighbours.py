"""Contextual nearest neighbours: which words, in which sentences, have a state like this one?

    cosine(h_l[i], g_m[t])      h: the stream after layer l at a position, g: that after layer m at
                                position t of a text of the index

The idea of LatentLens (McGill NLP 2026): an early layer already turns an image token into something
that texts have in a *later* layer, so neighbours are sought in all layers of the index, and what is
returned is a word in its sentence. Streams share a large mean direction, which raises every
cosine; `centred=True` subtracts the index's mean of the layer from both sides first:

    cosine(h_l[i] - mean g_l, g_m[t] - mean g_m)

It shows what is near, not what the model uses, and the nearest of bad candidates is still returned:
compare with pictures that do not show the thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.contextual_index import ContextualIndex, contextual_index
from mmlens.methods.over_lists import over_prompts
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.values.addresses import places
from mmlens.values.arguments import count, flag
from mmlens.values.errors import AddressError
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("layer", "pos", "rank", "token", "cosine", "text_layer", "text", "context")


@needs("unembed")
@over_prompts
def contextual_neighbours(
    model: HookedVLM,
    prompt: Any,
    index: ContextualIndex | str | Path | Sequence[str],
    *,
    layer: Any = None,
    pos: Any = None,
    text_layer: Any = None,
    k: int = 5,
    centred: bool = False,
) -> pd.DataFrame:
    """The `k` positions of the index's texts whose states are nearest to each position's.

    Args:
        index: what `contextual_index` returned, or its folder; a few texts in a list are read into
            one that lasts as long as the call.
        layer, pos: of the prompt, as in `Scores.sel` (Patch: the picture's); by default all.
        text_layer: the index's layers that are searched; by default all of them, "same" for the
            layer that is asked about.
        centred: subtract the mean state of the index from both sides.

    Returns:
        Columns layer, pos, rank (from 0), token (the word that the position belongs to), cosine,
        text_layer, text (its number in the index), context (the sentence, the word in brackets).

    Raises:
        CheckpointError: another model's index. AddressError: no such layer or position.
    """
    if isinstance(index, (list, tuple)):
        with TemporaryDirectory() as folder:
            made = contextual_index(model, index, folder, layer=None)
            return _table(model, prompt, made, layer, pos, text_layer, k, centred)
    where: Any = index
    there = where if isinstance(where, ContextualIndex) else ContextualIndex.open(where)
    there.check(model)
    return _table(model, prompt, there, layer, pos, text_layer, k, centred)


def _table(
    model: HookedVLM,
    prompt: Any,
    index: ContextualIndex,
    layer: Any,
    pos: Any,
    text_layer: Any,
    k: int,
    centred: bool,
) -> pd.DataFrame:
    import pandas as pd

    k, centred = count(k, "k"), flag(centred, "centred")
    soft = one(model, prompt)
    labels = soft.labels[0]
    where = places(labels, pos, "pos")
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    if centred and (missing := sorted(set(chosen) - set(index.layer))):
        raise AddressError(
            f"The index has no layer {missing[0]} whose mean could be subtracted: it has"
            f" {', '.join(map(str, index.layer))}."
        )
    states = _states(model, soft, chosen, where)
    searched = {layer: _searched(index, layer, text_layer) for layer in chosen}
    means: dict[int, Any] = {at: index.mean(at) if centred else 0.0 for at in index.layer}
    wanted = torch.stack([states[at] - (means[at] if centred else 0.0) for at in chosen])
    near = _nearest(index, wanted, [searched[at] for at in chosen], means, k)
    told = _Told(model, index)
    rows = [
        (layer, labels[place], rank, *told(*hit))
        for layer, row in zip(chosen, near, strict=True)
        for place, hits in zip(where, row, strict=True)
        for rank, hit in enumerate(hits)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.attrs["about"] = about(model, method="contextual_neighbours", prompt=soft, k=k,
                                 centred=centred, index=index.about["digest"])  # fmt: skip
    return table


def _searched(index: ContextualIndex, layer: int, wanted: Any) -> list[int]:
    """The index's layers that are searched for positions of a layer."""
    if isinstance(wanted, str) and wanted == "same":
        wanted = [layer]
        if layer not in index.layer:
            raise AddressError(
                f"The index has no layer {layer}: it has {', '.join(map(str, index.layer))}."
            )
    if wanted is None:
        return list(index.layer)
    asked = list(wanted) if isinstance(wanted, (list, tuple, range)) else wanted
    return [index.layer[at] for at in places(index.layer, asked, "text_layer")]


def _states(
    model: HookedVLM, soft: Any, layers: list[int], at: list[int]
) -> dict[int, torch.Tensor]:
    """By layer, Float[pos, d_model] on the CPU."""
    names = {SITES["resid_post"].at(layer): layer for layer in layers}
    end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
    with torch.no_grad(), capture(model, names, lambda x: x[0, at].detach().float().cpu()) as kept:
        model.run(soft, at=end)
    return {layer: finite(kept[name], f"the stream of layer {layer}")
            for name, layer in names.items()}  # fmt: skip


def _nearest(
    index: ContextualIndex,
    states: torch.Tensor,
    searched: list[list[int]],
    means: dict[int, Any],
    k: int,
) -> list[list[list[tuple[int, int, int, float]]]]:
    """Per layer and position the nearest (layer, shard, row, cosine).

    Args:
        states: Float[layer, pos, d_model]; each block of the index is read once for all of them.
        searched: by their layer, the index's layers.
    """
    wanted = torch.nn.functional.normalize(states, dim=-1)
    best = [torch.zeros(wanted.shape[1], 0) for _ in searched]
    keys = [torch.zeros(wanted.shape[1], 0, 3, dtype=torch.long) for _ in searched]
    for layer in sorted(set().union(*searched)):
        asking = [i for i, those in enumerate(searched) if layer in those]
        for shard, start, block in index.blocks(layer):
            block = torch.nn.functional.normalize(block - means[layer], dim=-1)
            values, rows = (wanted[asking] @ block.T).topk(min(k, len(block)))
            key = torch.stack([torch.full_like(rows, layer), torch.full_like(rows, shard),
                               rows + start], -1)  # fmt: skip
            for i, here, names in zip(asking, values, key, strict=True):
                both, every = torch.cat([best[i], here], 1), torch.cat([keys[i], names], 1)
                best[i], kept = both.topk(min(k, both.shape[1]))
                keys[i] = every.gather(1, kept[..., None].expand(-1, -1, 3))
    return [
        [
            [(*key, value) for key, value in zip(hits, values, strict=True)]
            for hits, values in zip(names.tolist(), found.tolist(), strict=True)
        ]
        for names, found in zip(keys, best, strict=True)
    ]


class _Told:
    """Hits of the index in words; the pieces of each text are asked for once."""

    def __init__(self, model: HookedVLM, index: ContextualIndex) -> None:
        self.model, self.index = model, index
        self.pieces: dict[int, list[tuple[int, str]]] = {}

    def __call__(
        self, layer: int, shard: int, row: int, cosine: float
    ) -> tuple[str, float, int, int, str]:
        """(token, cosine, text_layer, text, context)."""
        text, at, _ = (int(value) for value in self.index.read("rows", shard)[row])
        if text not in self.pieces:
            labels: Any = self.model.read(self.index.texts[text]).labels[0]
            self.pieces[text] = [(label.at, str(label)) for label in labels]
        word, context = in_context(self.pieces[text], at)
        return word, cosine, layer, text, context


def in_context(pieces: list[tuple[int, str]], at: int) -> tuple[str, str]:
    """The word that a piece belongs to, and the text with this word in brackets.

    Args:
        pieces: (position, text) of each, in reading order.
    """
    parts = [text for _, text in pieces]
    first = last = next(i for i, (place, _) in enumerate(pieces) if place == at)
    while first and _joins(parts[first - 1], parts[first]):
        first -= 1
    while last + 1 < len(parts) and _joins(parts[last], parts[last + 1]):
        last += 1
    word = "".join(parts[first : last + 1])
    space = " " if word.startswith(" ") else ""
    before, behind = "".join(parts[:first]), "".join(parts[last + 1 :])
    return word, f"{before}{space}[{word.strip()}]{behind}".strip()


def _joins(one: str, other: str) -> bool:
    """Whether two pieces are of one word."""
    return one[-1:].isalnum() and other[:1].isalnum()
