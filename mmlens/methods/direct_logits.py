"""Direct logit attribution: what each part writes into a word's logit (Elhage et al. 2021).

The residual stream is a sum of writes, and the final norm divides it by one number s (frozen here):

    logit[w] = sum over parts of (c . d) / s  +  bias,   d = gain * W_U[:, w],  centred where the
    norm centres

so every part has a share, and shares and bias add up to the logit, which is checked at each call,
up to the rounding of the model's dtype. Effects through later layers are not included: use patching
for these.

Axes: (part) for "embed", "attn 0", "mlp 0", ..., with "cross 0" between them where a layer reads
pictures by cross-attention, and "deepstack 0" after them where pictures are added again behind it;
(layer, head); (layer, unit).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.causal.many_pairs import over_pairs
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.towers.language.tokenization import id_of
from mmlens.values.addresses import places
from mmlens.values.arguments import choice
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_NO_DOUBLE = ("mps",)
"""Kinds of devices without double precision: Apple's."""
_KINDS = {"attn_out": "attn", "cross_attn_out": "cross", "mlp_out": "mlp", "deepstack": "deepstack"}
"""What writes to the stream, in a layer's order, and what its part is called."""


@needs("unembed")
@over_pairs(reads="clean", metric="of")
def direct_logits(
    model: HookedVLM,
    prompt: Any,
    of: str | int,
    *,
    minus: str | int | None = None,
    by: str = "part",
    pos: Any = -1,
) -> Scores:
    """Shares of a word's logit at one position: Scores(part), (layer, head) or (layer, unit).

    Args:
        of: a word of one token, or an id.
        minus: a word whose logit is subtracted, for shares of a logit difference.
        by: "part" (embedding, attention and MLP of each layer), "head" or "neuron".
        pos: the position whose logits are explained.

    Returns:
        `about` has "bias" (of the final norm and the unembedding) and "logit", the model's own.

    Raises:
        CapabilityError: on this architecture the shares do not add up to the logit, or there are no
            MLP units.
    """
    choice(by, "by", ("part", "head", "neuron"), error=AddressError)
    soft = one(model, prompt)
    at = places(soft.labels[0], pos, "pos")
    if len(at) != 1:
        raise AddressError(f"These are {len(at)} positions: direct_logits reads one at a time.")
    wanted = {"part": tuple(_KINDS), "head": ("attn_out", "z"),
              "neuron": ("mlp_out", "neurons")}[by]  # fmt: skip
    if by == "neuron":
        model.lm.units.need(model.name)
    kept, logits = _read(model, soft, at[0], wanted)
    words = [of] if minus is None else [of, minus]
    tokens = [id_of(model.lm, w) for w in words]
    direction, bias = _direction(model, kept["resid"][0], tokens)
    truth, size = float(_difference(logits.float(), tokens)), float(logits[tokens].abs().sum())
    terms = _wide(kept["resid"][0]) * direction
    off = abs(float(terms.sum()) + bias - truth)
    if off > _rounding(model, terms, size):
        raise CapabilityError(
            f"The final norm and unembedding of {model.name!r} do not give its own logit from the"
            f" residual stream (off by {off:.3g}), so shares would be wrong."
        )
    told = about(model, method="direct_logits", prompt=soft, of=of, minus=str(minus), by=by,
                 bias=bias, logit=truth)  # fmt: skip
    if by == "part":
        return _parts(model, kept, direction, truth - bias, told)
    rows = torch.stack([_inside(model, kept, layer, direction, by)
                        for layer in range(model.cfg.n_layers)])  # fmt: skip
    axes = ("layer", "head" if by == "head" else "unit")
    return Scores(rows, axes, {"layer": tuple(range(len(rows)))}, told)


def _read(
    model: HookedVLM, soft: Any, at: int, sites: tuple[str, ...]
) -> tuple[dict[str, list[torch.Tensor]], torch.Tensor]:
    """The activations at one position, per site one tensor per layer; and its logits."""
    last = model.cfg.n_layers - 1
    places = {name: [SITES[name].at(layer) for layer in range(last + 1)] for name in sites}
    reads = {"cross_attn_out": soft.picture_keys, "deepstack": soft.deep}
    for site in reads.keys() & places.keys():
        fires = model.lm.can.fires if reads[site] is not None else ()
        places[site] = [name for name in places[site] if name in fires]
    places |= {"embed": [SITES["resid_pre"].at(0)], "resid": [SITES["resid_post"].at(last)]}
    names = dict.fromkeys(name for several in places.values() for name in several)
    with torch.no_grad(), capture(model, names, lambda x: x[0, at].detach()) as found:
        logits = model.run(soft)[0, at]
    kept = {name: [found[place] for place in several] for name, several in places.items()}
    for name, tensors in kept.items():
        for tensor in tensors:
            finite(tensor, f"the activations at {name!r} in {model.name!r}")
    return kept, finite(logits, f"the logits of {model.name!r}")


def _wide(values: torch.Tensor) -> torch.Tensor:
    """In double precision, or in float32 where the device has none."""
    return values.float() if values.device.type in _NO_DOUBLE else values.double()


def _rounding(model: HookedVLM, terms: torch.Tensor, size: float) -> float:
    """How far a sum of these terms may be from the model's result in its own dtype."""
    eps = torch.finfo(model.lm.dtype).eps
    return 1e-3 * max(1.0, abs(size)) + 2 * eps * (float(terms.abs().sum()) + abs(size))


def _direction(
    model: HookedVLM, resid: Float[Tensor, " d_model"], tokens: list[int]
) -> tuple[Float[Tensor, " d_model"], float]:
    """The direction whose product with a write is its share, and the remaining bias."""
    lm = model.lm
    gain, centres = lm.final_gain
    gain = _wide(gain)
    x = _wide(resid)
    x = (x - x.mean()) * gain if centres else x * gain
    with torch.no_grad():
        norm = lambda v: _wide(lm.final_norm(v.to(lm.dtype)[None, None])[0, 0])  # noqa: E731
        zero = norm(torch.zeros_like(resid))
        out = norm(resid) - zero
    scale = (x @ x) / (x @ out)
    bias = getattr(lm.root, "b_U", None)
    word = _difference(_wide(lm.word_directions(tokens)), list(range(len(tokens))))
    direction = word * gain
    direction = direction - direction.mean() if centres else direction
    added = _difference(bias, tokens) if isinstance(bias, torch.Tensor) else 0.0
    return direction / scale, float(zero @ word) + float(added)


def _difference(table: Float[Tensor, "*lead d_vocab"], tokens: list[int]) -> Float[Tensor, "*lead"]:
    """The column of a word, minus that of another where there are two."""
    return table[..., tokens[0]] - (table[..., tokens[1]] if len(tokens) > 1 else 0.0)


def _parts(
    model: HookedVLM,
    kept: dict[str, list[torch.Tensor]],
    direction: torch.Tensor,
    wanted: float,
    told: dict[str, Any],
) -> Scores:
    names, writes = ["embed"], [kept["embed"][0]]
    found: dict[str, dict[int, torch.Tensor]] = {}
    for site in _KINDS:
        layers = hooking.layers(model, SITES[site]) if kept[site] else []
        found[site] = dict(zip(layers, kept[site], strict=True))
    for layer in range(model.cfg.n_layers):
        there = [site for site in _KINDS if layer in found[site]]
        names += [f"{_KINDS[site]} {layer}" for site in there]
        writes += [found[site][layer] for site in there]
    terms = _wide(torch.stack(writes)) * direction
    shares = terms.sum(-1)
    off = abs(float(shares.sum()) - wanted)
    if off > _rounding(model, terms, wanted):
        raise CapabilityError(
            f"What attention and MLPs of {model.name!r} write does not add up to its stream"
            f" (off by {off:.3g}), so shares would be wrong."
        )
    return Scores(shares.float(), ("part",), {"part": tuple(names)}, told)


def _inside(
    model: HookedVLM,
    kept: dict[str, list[torch.Tensor]],
    layer: int,
    direction: torch.Tensor,
    by: str,
) -> torch.Tensor:
    """Shares of the heads or units of one layer; checked to add up to the layer's output."""
    block = model.root.blocks[layer]
    if by == "head":
        weight, active = _wide(block.attn.W_O), _wide(kept["z"][layer])
        shares = torch.einsum("hd,hdm,m->h", active, weight, direction)
        bias, whole = getattr(block.attn, "b_O", None), kept["attn_out"][layer]
    else:
        active, units = _wide(kept["neurons"][layer]), model.lm.units
        length, added = units.behind(layer, kept["neurons"][layer][None])
        shares = active * (_wide(units.written(layer)) @ direction) * float(length[0])
        bias, whole = added[0], kept["mlp_out"][layer]
    rest = float(_wide(bias) @ direction) if isinstance(bias, torch.Tensor) else 0.0
    terms = _wide(whole) * direction
    off = abs(float(shares.sum()) + rest - float(terms.sum()))
    sizes = torch.cat([terms.abs(), shares.abs()])
    if off > _rounding(model, sizes, float(shares.abs().sum())):
        raise CapabilityError(
            f"The {by}s of layer {layer} of {model.name!r} do not add up to what the layer writes"
            f" (off by {off:.3g}; a norm or a scale is between): use by='part'."
        )
    return shares.float()
