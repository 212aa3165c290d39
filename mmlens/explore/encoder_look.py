"""One picture read by an encoder: how well texts (or classes) fit it, and the units behind each.

    seen = look(clip, photo, of=["a photo of a dog", "a photo of a cat"])
    seen.neurons                     # the units that raise the better of the two

The score of a unit is its gradient x activation after the activation function, summed over all
positions: to first order, what the logit loses without the unit. A map holds at each patch the sum
over all units of all layers (of layers with other grids, see `encoder_units`). What stands at
tokens beside the patches (CLS) is in the scores of units and in no map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.explore.deeper import Depth
from mmlens.explore.encoder_units import (
    VISION,
    at_patches_and_all,
    firing_units,
    patch_activity,
    shown_patches,
    sites_of,
)
from mmlens.methods.attribute import products, silencing
from mmlens.methods.decode import sign_of
from mmlens.methods.embed import embed
from mmlens.methods.named_classes import need_names
from mmlens.model import hooking
from mmlens.model.provenance import about
from mmlens.model.readouts import aim_class, class_index, unit_site
from mmlens.model.similarity import aim_direction
from mmlens.model.targets import Target
from mmlens.runtime.chunks import in_chunks
from mmlens.values.arguments import several, text
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Neuron, Patch, Token
from mmlens.values.maps import inner_of, is_map
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

BATCH = 32
CLASSES = 5
"""How many classes of a classifier are explained, unless some are named."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a picture is held against.

    Attributes:
        names: the texts, or the classes.
        targets: the logit of each.
        probabilities: from outputs Float[row, ...] to Float[row, name]; None of a single text,
            whose softmax is always 1.
    """

    names: tuple[str, ...]
    targets: list[Target]
    probabilities: Callable[[Tensor], Float[Tensor, "row name"]] | None


def answers_of(model: Any, photo: Image.Image, of: Any) -> Answers:
    """The texts or classes that are explained.

    Args:
        of: one or several; None for the first classes of a classifier.

    Raises:
        CapabilityError: the model has neither texts nor classes. ArgumentError, TargetError: no
            text, or no such class.
    """
    need_names(model, "there is nothing to explain but a unit, attribute(..., of=Neuron(...))")
    given = [of] if isinstance(of, (str, int)) else of
    if model.can("similarity"):
        if given is None:
            raise ArgumentError(
                f"{model.name!r} compares pictures with texts: write of='a photo of a dog', or"
                " several texts, of which the best is explained first."
            )
        names = [text(one, "of", empty=False) for one in several(given, "of")]
        if len(set(names)) < len(names):
            raise ArgumentError(f"of={names}: write every text once.")
        return _of_texts(model, tuple(names))
    known = model.towers[VISION].class_names
    with torch.no_grad():
        order = model.run(photo)[0].argsort(descending=True).tolist()
    given = order[:CLASSES] if given is None else several(given, "of")
    places = [class_index(known, one) for one in given]
    return Answers(
        tuple(known[place] for place in places),
        [aim_class(known, place, "logit") for place in places],
        lambda rows: rows.float().softmax(-1)[:, places],
    )


def _of_texts(model: Any, names: tuple[str, ...]) -> Answers:
    table = embed(model, list(names))

    def probabilities(rows: Tensor) -> Tensor:
        return model.probabilities(model.logits(rows @ table.T).float())

    told = probabilities if len(names) > 1 or model.sigmoid else None
    return Answers(names, [aim_direction(model, row, "logit") for row in table], told)


def read_encoder(model: Any, photo: Image.Image, of: Any, k: int, depth: Depth | None) -> Any:
    """The parts of a `Look`, by name.

    Args:
        of: as in `answers_of`.
        k: units per text.
    """
    asked, reading = answers_of(model, photo, of), model.one(Prompt(photo))
    labels = tuple(Token(name, at) for at, name in enumerate(asked.names))
    patches, chosen = shown_patches(model), _best(model, reading, asked)
    maps, found = _scored(model, reading, asked.targets, k, len(patches))
    firing = firing_units(model, photo, depth.firing) if depth else None
    more = list(firing["neuron"]) if firing is not None else []
    neurons = tuple(dict.fromkeys([*(n for rows in found for _, n, _ in rows), *more]))
    active = patch_activity(model, photo, neurons)
    told = about(
        model, method="attribute", target="logit", point="post", prompt=reading,
        at="all positions, summed", tower=VISION,
        silencing=silencing(model, "post", SITES[next(iter(sites_of(model).values()))]),
    ) | {"of": list(asked.names)}  # fmt: skip
    there = about(model, method="activations", prompt=reading, tower=VISION)
    parts: dict[str, Any] = {
        "caption": asked.names[chosen], "tokens": labels, "token": labels[chosen],
        "maps": Scores(maps, ("token", "pos"), {"token": labels, "pos": patches}, told),
        "table": _table(labels, found, patches, dict(zip(neurons, active, strict=True))),
        "firing": firing, "about": told,
        "activations": Scores(
            active, ("neuron", "pos"), {"neuron": neurons, "pos": patches}, there
        ),
    }  # fmt: skip
    if depth is not None and asked.probabilities is not None:
        parts |= _silenced(model, reading, asked, found, neurons, labels, chosen, depth)
    return parts


Found = list[list[tuple[float, Neuron, int]]]
"""Per text its units: score, unit, and the index of the patch where its score is largest."""


def _scored(
    model: Any, reading: Any, targets: list[Target], k: int, n_patches: int
) -> tuple[Float[Tensor, "name patch"], Found]:
    """The map of each target, and its `k` units of largest score."""
    maps, best = torch.zeros(len(targets), n_patches), [[] for _ in targets]

    def receive(index: int, layer: int, product: Tensor) -> None:
        at_patches, total = at_patches_and_all(model, layer, product.float().cpu())
        maps[index] += at_patches.sum(0)
        top = total.topk(min(k, len(total)))
        places = at_patches[top.indices].argmax(1).tolist()
        rows = zip(top.values.tolist(), top.indices.tolist(), places, strict=True)
        best[index] += [(score, Neuron(layer, unit, VISION), at) for score, unit, at in rows]

    sites = sites_of(model)
    for name in dict.fromkeys(sites.values()):
        layers = [layer for layer, site in sites.items() if site == name]
        products(model, reading, targets, receive, SITES[name], layers)
    return maps, [sorted(rows, key=lambda row: -row[0])[:k] for rows in best]


def _table(
    labels: tuple[Token, ...],
    found: Found,
    patches: tuple[Patch, ...],
    active: dict[Neuron, Float[Tensor, " patch"]],
) -> pd.DataFrame:
    """The columns of `Look.table`; units of an encoder decode to no words."""
    import pandas as pd

    rows = [
        {"token": label, "neuron": neuron, "patch": patches[place], "score": score,
         "active": float(active[neuron][place])}
        for label, some in zip(labels, found, strict=True) for score, neuron, place in some
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["token", "neuron", "patch", "score", "active"])
    nothing: Any = [[] for _ in rows]
    signs = [sign_of(value) for value in table["active"]]
    return table.assign(sign=signs, words=nothing, probs=nothing, interpretable=False)


def _best(model: Any, reading: Any, asked: Answers) -> int:
    """The index of the text (or class) of the largest logit."""
    with torch.no_grad():
        row = model.side_by_side(reading, 1)[0]
    return int(torch.stack([target.number(row) for target in asked.targets]).argmax())


def _silenced(
    model: Any,
    reading: Any,
    asked: Answers,
    found: Found,
    neurons: tuple[Neuron, ...],
    labels: tuple[Token, ...],
    chosen: int,
    depth: Depth,
) -> dict[str, Any]:
    """The probability of each text as it is, without each unit, and without its first ones."""
    groups = [[neuron for _, neuron, _ in rows[: depth.silenced]] for rows in found]
    alone = groups[chosen] if depth.one_by_one == "token" else [n for some in groups for n in some]
    alone = [*alone, *(neurons if depth.one_by_one == "all" else ())]
    silent = tuple(dict.fromkeys(alone))
    prob = without(model, reading, asked, [[], *groups, *([one] for one in silent)])
    told = about(model, method="silencing", value=0.0, at="all positions", prompt=reading)
    end, words = 1 + len(groups), {"token": labels}
    own = prob[1:end].diagonal()
    return {
        "before": Scores(prob[0], ("token",), words, told),
        "together": Scores(own.clone(), ("token",), words, told),
        "without": Scores(prob[end:], ("neuron", "token"), {"neuron": silent} | words, told),
    }


def without(
    model: Any, reading: Any, asked: Answers, silent: Sequence[Sequence[Neuron]]
) -> Float[Tensor, "variant name"]:
    """The probabilities with the units of each variant at 0 everywhere, rows of a batch."""
    assert asked.probabilities is not None  # the caller has asked

    def work(start: int, stop: int) -> Tensor:
        some, hooks = silent[start:stop], []
        for layer in sorted({neuron.layer for units in some for neuron in units}):
            site = unit_site(model, Neuron(layer, 0, VISION))
            axes = hooking.check_places(model, site, [layer])[layer].axes
            inner = inner_of(axes) if is_map(axes) else axes[-1]
            pairs = [
                (row, n.unit) for row, units in enumerate(some) for n in units if n.layer == layer
            ]
            hooks.append((site.at(layer), partial(_zero, dim=1 + axes.index(inner), pairs=pairs)))
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            return asked.probabilities(model.side_by_side(reading, len(some), tower=VISION)).cpu()  # type: ignore[misc]

    return torch.cat(list(in_chunks(len(silent), BATCH, work)))


def _zero(values: Tensor, hook: Any, dim: int, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """The values with 0 at these (row, unit)."""
    out = values.clone()
    rows, units = (list(one) for one in zip(*pairs, strict=True))
    out.movedim(dim, 1)[rows, units] = 0.0
    return out
