"""Direct logit attribution: what each part writes into a word's logit (Elhage et al. 2021).

The residual stream is a sum of writes, and the final norm divides it by one number s (frozen here):

    logit[w] = sum over parts of (c . d) / s  +  bias,   d = gain * W_U[:, w],  centred where the
    norm centres

so every part has a share, and shares and bias add up to the logit, which is checked at each call,
up to the rounding of the model's dtype. Effects through later layers are not included: use patching
for these.

Axes: (part) for "embed", "attn 0", "mlp 0", ..., with "cross 0" between them where a layer reads
pictures by cross-attention, and "deepstack 0" after them where pictures are added again behind it;
(layer, head); (layer, unit); (layer, expert), without what an expert of all tokens writes beside
them.
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
from mmlens.towers.language.head_weights import head_weights
from mmlens.towers.language.tokenization import id_of, word
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
Kept = dict[str, dict[int, Tensor]]
"""Activations Float[...] at one position, by site and layer."""


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
    """Shares of a word's logit at one position: Scores(part), (layer, head), (layer, unit) or
    (layer, expert).

    Args:
        of: a word of one token, or an id.
        minus: a word whose logit is subtracted, for shares of a logit difference.
        by: "part" (embedding, attention and MLP of each layer), "head", "neuron" or "expert" (of
            the layers that are mixtures; 0 where the position is not routed).
        pos: the position whose logits are explained.

    Returns:
        `about` has "bias" (of the final norm and the unembedding) and "logit", the model's own.

    Raises:
        CapabilityError: on this architecture the shares do not add up to the logit, or there are no
            MLP units or experts.
    """
    choice(by, "by", ("part", "head", "neuron", "expert"), error=AddressError)
    soft = one(model, prompt)
    at = places(soft.labels[0], pos, "pos")
    if len(at) != 1:
        raise AddressError(f"These are {len(at)} positions: direct_logits reads one at a time.")
    wanted = {"part": tuple(_KINDS), "head": ("attn_out", "z"),
              "neuron": ("mlp_out", "neurons"),
              "expert": ("expert_weights", "expert_neurons")}[by]  # fmt: skip
    if by == "neuron":
        model.lm.units.need(model.name)
    if by == "expert" and not model.lm.mixtures:
        raise CapabilityError(
            f"{model.name!r} has no experts whose units are read: write by='part' or by='head'."
        )
    kept, logits = _read(model, soft, at[0], wanted)
    words = [of] if minus is None else [of, minus]
    tokens = [id_of(model.lm, w) for w in words]
    direction, bias = logit_direction(model, kept["resid"][0], tokens)
    truth, size = float(_difference(logits.float(), tokens)), float(logits[tokens].abs().sum())
    terms = _wide(kept["resid"][0]) * direction
    off = abs(float(terms.sum()) + bias - truth)
    if off > _rounding(model, terms, size):
        raise CapabilityError(
            f"The final norm and unembedding of {model.name!r} do not give its own logit from the"
            f" residual stream (off by {off:.3g}), so shares would be wrong."
        )
    both = zip(words, tokens, strict=True)
    said = [given if isinstance(given, str) else word(model.lm, token) for given, token in both]
    told = about(model, method="direct_logits", prompt=soft, of=said[0],
                 minus=str(None if minus is None else said[1]), by=by, bias=bias,
                 logit=truth)  # fmt: skip
    if by == "part":
        return _parts(model, kept, direction, truth - bias, told)
    axis, shares = {"head": ("head", _inside), "neuron": ("unit", _inside),
                    "expert": ("expert", _of_experts)}[by]  # fmt: skip
    layers = tuple(kept[wanted[1]])
    rows = torch.stack([shares(model, kept, layer, direction, by) for layer in layers])
    return Scores(rows, ("layer", axis), {"layer": layers}, told)


def _read(model: HookedVLM, soft: Any, at: int, sites: tuple[str, ...]) -> tuple[Kept, Tensor]:
    """The activations at one position, per site one tensor per layer; and its logits."""
    reads = {"cross_attn_out": soft.picture_keys, "deepstack": soft.deep}
    fires = model.lm.can.fires
    places = {name: {layer: SITES[name].at(layer) for layer in hooking.layers(model, SITES[name])}
              for name in sites}  # fmt: skip
    for site in reads.keys() & places.keys():
        there = places[site].items() if reads[site] is not None else ()
        places[site] = {layer: name for layer, name in there if name in fires}
    gated = list(model.lm.crossing.gates) if model.lm.crossing is not None else []
    gated = gated if "mlp_out" in sites else []  # whose MLP's output is not what it writes
    for name in ("resid_mid", "resid_post"):
        places[name] = {layer: SITES[name].at(layer) for layer in gated}
    first, last = SITES["resid_pre"].at(0), SITES["resid_post"].at(model.cfg.n_layers - 1)
    places |= {"embed": {0: first}, "resid": {0: last}}
    names = dict.fromkeys(name for several in places.values() for name in several.values())
    with torch.no_grad(), capture(model, names, lambda x: x[0, at].detach()) as found:
        logits = model.run(soft)[0, at]
    kept = {name: {layer: found[place] for layer, place in several.items()}
            for name, several in places.items()}  # fmt: skip
    for name, tensors in kept.items():
        for tensor in tensors.values():
            finite(tensor, f"the activations at {name!r} in {model.name!r}")
    for layer in gated:
        kept["mlp_out"][layer] = kept["resid_post"][layer] - kept["resid_mid"][layer]
    return kept, finite(logits, f"the logits of {model.name!r}")


def _wide(values: torch.Tensor) -> torch.Tensor:
    """In double precision, or in float32 where the device has none."""
    return values.float() if values.device.type in _NO_DOUBLE else values.double()


def _rounding(model: HookedVLM, terms: torch.Tensor, size: float) -> float:
    """How far a sum of these terms may be from the model's result in its own dtype."""
    eps = torch.finfo(model.lm.dtype).eps
    return 1e-3 * max(1.0, abs(size)) + 2 * eps * (float(terms.abs().sum()) + abs(size))


def logit_direction(
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
    kept: Kept,
    direction: torch.Tensor,
    wanted: float,
    told: dict[str, Any],
) -> Scores:
    names, writes = ["embed"], [kept["embed"][0]]
    for layer in range(model.cfg.n_layers):
        there = [site for site in _KINDS if layer in kept[site]]
        names += [f"{_KINDS[site]} {layer}" for site in there]
        writes += [kept[site][layer] for site in there]
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
    kept: Kept,
    layer: int,
    direction: torch.Tensor,
    by: str,
) -> torch.Tensor:
    """Shares of the heads or units of one layer; checked to add up to the layer's output."""
    block = model.root.blocks[layer]
    if by == "head":
        weight = _wide(head_weights(block, f"layer {layer} of {model.name!r}"))
        active = _wide(kept["z"][layer])
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


def _of_experts(
    model: HookedVLM, kept: Kept, layer: int, direction: torch.Tensor, by: str
) -> torch.Tensor:
    """Shares of the experts of one layer, what each writes times its weight."""
    mixture, weights = model.lm.mixtures[layer], _wide(kept["expert_weights"][layer])
    active, shares = _wide(kept["expert_neurons"][layer]), torch.zeros_like(weights)
    for expert in weights.nonzero()[:, 0].tolist():
        wrote = active[expert] @ _wide(mixture.w_out(expert).detach()) + mixture.bias(expert)
        shares[expert] = weights[expert] * (wrote @ direction)
    return shares.float()
