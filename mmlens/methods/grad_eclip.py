"""Grad-ECLIP: values that the answer's position could read, weighted by its gradient.

Zhao et al. (2024, "Gradient-based Visual Explanation for Transformer-based CLIP", ICML; arXiv
2502.18816). With c the position that the answer is read from (the class token of an encoder, the
end of a text), z_c what the heads of a layer hold there, side by side, and q, k, v their queries,
keys and values,

    w     = dy / dz_c                                          what each channel is worth
    s_i   = cos(q_c, k_i),  scaled from 0 to 1 over i          the "loosened" attention
    map_i = ReLU( sum over layers of  s_i (w . v_i) )

The pattern a_i sums the same terms to the first-order effect of the layer, sum_i a_i (w . v_i) =
w . z_c; s_i stands in its place because a pattern is often at a few positions alone. So the map
adds up to nothing, and says what could be read and not what was. Every value is scaled by a number
from 0 to 1, the largest by 1, however little is read of it.

The published code takes the layer's attention as one single head, which is another model (Cui and
Fan 2026, arXiv 2605.12952), and the output projection of q and k; here heads, queries and keys are
the model's own, before rotary positions. It reads the last layer of an encoder of pictures,
patches alone, and the last layers of a text; a language model is read as a text is: causal, at its
last position, pictures among the words.

Axes: (pos), not negative unless `signed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.attention_routes import end_of, pattern_points, read_at
from mmlens.methods.gradients_at import At, gradients_at
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.runtime.autograd import ordinary
from mmlens.values.addresses import places
from mmlens.values.arguments import flag
from mmlens.values.errors import AddressError, CapabilityError, TargetError
from mmlens.values.labels import LM, Label, Patch
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

_PARTS = ("z", "q", "k", "v", "pattern")
Kept = dict[str, At]


@needs()
@ordinary()
def grad_eclip(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    layer: Any = None,
    signed: bool = False,
) -> Scores:
    """How much each patch (or word) could raise one similarity, word or class: Scores(pos).

    Args:
        of, target, after: as in `attribute`.
        layer: some layers, as in `Scores.sel`; None for the last of an encoder of pictures, and for
            all of a text encoder or language model.
        signed: keep what lowers it, which the paper cuts off.

    Raises:
        CapabilityError: a layer without attention from each position to each, or whose heads do not
            sum values by their pattern; an answer that is read from several positions.
        AddressError: no such layer, or one on which the answer does not depend.
        TargetError: as in `attribute`; a unit.
    """
    signed = flag(signed, "signed")
    reading, aimed = model.aim(prompt, of, target, after)
    if aimed.at is not None:
        raise TargetError(
            "Grad-ECLIP goes back from the position that an answer is read from, so no unit can be"
            " explained by it: write of=' dog', a class or a text, or use grad_cam."
        )
    tower = model.reading_tower(prompt)
    chosen, across = _layers(model, tower, layer)
    points = {site.at(one): part for one in chosen for part, site in _sites(tower).items()}
    points |= {site.at(one): part for one in across for part, site in _sites(tower, True).items()}
    ends = [] if tower == LM else [end_of(model, tower)]
    wanted = [name for name, part in points.items() if part == "z"]
    beside = [name for name, part in points.items() if part != "z"]
    kept, _ = gradients_at(model, reading, aimed, [*wanted, *ends], beside)
    row, at = (0, aimed.position) if tower == LM else _one_position(model, tower, kept[ends[0]])
    labels, shown = _labels(model, reading, tower, chosen[-1], row)
    found = _sum(model, kept, chosen, tower, (row, at), shown)
    values, named = found[shown], tuple(labels[i] for i in shown)
    if across:
        keys = reading.picture_keys.labels[0]
        every = list(range(len(keys)))
        values = torch.cat([_sum(model, kept, across, tower, (row, at), every, True), values])
        named = (*keys, *named)
    values = values if signed else values.clamp(min=0)
    told = about(model, method="grad_eclip", prompt=reading, of=aimed.token, target=target,
                 layer=", ".join(map(str, chosen)))  # fmt: skip
    return Scores(finite(values, "Grad-ECLIP"), ("pos",), {"pos": named}, told)


def loosened(q: Tensor, k: Tensor, shown: Tensor) -> Tensor:
    """cos(q, k_i), scaled from 0 to 1 over the positions that are shown; 1 where all are alike.

    Args:
        q: Float[dim]. k: Float[pos, dim]. shown: Bool[pos].
    """
    cosine = torch.cosine_similarity(q[None], k, dim=-1)
    low, high = cosine[shown].min(), cosine[shown].max()
    if bool(high - low <= 1e-6):
        return torch.ones_like(cosine)
    return (cosine - low) / (high - low)


def _sites(tower: str, across: bool = False) -> dict[str, Any]:
    """The sites of a layer's attention by what they hold."""
    start = "cross_" if across else "" if tower == LM else f"{tower}."
    return {part: SITES[f"{start}{part}"] for part in _PARTS}


def _layers(model: HookedModel, tower: str, layer: Any) -> tuple[list[int], list[int]]:
    """The layers that are asked for: with attention among positions, and to pictures beside them.

    Raises:
        CapabilityError: a layer has no attention. AddressError: no such layer.
    """
    pattern_points(model, tower)
    known = hooking.points(model)
    every = list(hooking.layers(model, _sites(tower)["pattern"]))
    default = every[-1:] if tower == "vision" else every
    named = dict.fromkeys(places(every, layer, "layer"))  # named twice, it counts once
    asked = default if layer is None else [every[i] for i in named]
    for one in asked:
        for part, site in _sites(tower).items():
            name = site.at(one)
            if name not in known or model.towers[tower].site(site, one).axes != site.axes:
                raise CapabilityError(
                    f"Layer {one} of the tower {tower!r} of {model.name!r} has no {part!r} of each"
                    " position (fused, or within windows), which Grad-ECLIP needs: write"
                    " relevance.grad_cam(...) or relevance.occlusion(...)."
                )
    across = [one for one in asked if tower == LM and _sites(LM, True)["z"].at(one) in known]
    return asked, across


def _one_position(model: HookedModel, tower: str, end: At) -> tuple[int, int]:
    """The row and the position that an encoder's answer is read from.

    Raises:
        CapabilityError: there are several.
    """
    if len(end.value) != 1 or len(read := read_at(model, end)) != 1:
        raise CapabilityError(
            f"The answer of the tower {tower!r} of {model.name!r} is read from several positions"
            " (pooled), and Grad-ECLIP goes back from one: write relevance.chefer(...) or"
            " relevance.grad_cam(...)."
        )
    return 0, int(read[0])


def _labels(
    model: HookedModel, reading: Any, tower: str, layer: int, row: int
) -> tuple[list[Label], list[int]]:
    """The labels of positions, and which of them are shown: patches of an encoder of pictures."""
    if tower == LM:
        labels = list(reading.labels[0])
    else:
        site = _sites(tower)["z"]
        labels = list(model.picture_rows(reading.prompts, site, layer)[row])
    patches = [at for at, label in enumerate(labels) if isinstance(label, Patch)]
    return labels, patches if tower == "vision" else list(range(len(labels)))


def _sum(
    model: HookedModel, kept: Kept, chosen: list[int], tower: str, place: tuple[int, int],
    shown: list[int], across: bool = False,
) -> Tensor:  # fmt: skip
    """The sum over layers of s_i (w . v_i): Float[key], not cut off.

    Raises:
        AddressError: the answer does not depend on a layer.
        CapabilityError: z is no sum of values by the pattern.
    """
    total: Tensor | None = None
    for layer in chosen:
        z, q, k, v, pattern = (kept[site.at(layer)] for site in _sites(tower, across).values())
        if z.grad is None:
            raise AddressError(
                f"The answer of {model.name!r} does not depend on what attention holds in layer"
                f" {layer}: name an earlier layer."
            )
        row, at = place
        w, heads = z.grad[row, at], z.value.shape[2]
        keys, values = (one.value[row].repeat_interleave(heads // one.value.shape[2], 1)
                        for one in (k, v))  # fmt: skip
        weights = pattern.value[row, :, at]
        read = torch.einsum("hk,khd->hd", weights, values)
        off, size = (read - z.value[row, at]).abs().max(), values.abs().max()
        if float(off) > 1e-3 * float(size) + 8 * torch.finfo(model.answer_dtype).eps * float(size):
            raise CapabilityError(
                f"What the heads of layer {layer} of {model.name!r} hold is not the sum of values"
                f" by their pattern (off by {float(off):.3g} of {float(size):.3g}), so Grad-ECLIP's"
                " terms are none of its own: write relevance.grad_cam(...)."
            )
        seen = torch.zeros(len(keys), dtype=torch.bool)
        seen[shown] = True
        seen &= (weights > 0).any(0).to(seen)  # what a causal mask or padding hides is not there
        scale = loosened(q.value[row, at].flatten(), keys.flatten(1), seen) * seen.to(w)
        found = scale * torch.einsum("hd,khd->k", w, values)
        total = found if total is None else total + found
    assert total is not None
    return total
