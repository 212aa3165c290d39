"""From unit to unit: what a unit of one layer adds to those of the next, by the weights alone.

A unit u writes its activation times its output row o_u to the residual stream; a unit v of the next
layer reads the stream through a norm and its input column i_v. Along the stream, past attention,

    c(u, v) = (o_u * scale) . (gain * i_v) / sigma

is what v's pre-activation gains per unit of u's activation, sigma being the size that the norm
divides by at the patches of one picture (what u changes in sigma is left out). `scale` (layer
scale) and `gain` (of the norm) are fitted to one forward pass and kept only if they explain it,
whatever the modules are called; where they do not, the plain product o_u . i_v is given, and
`measured` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model.capture import capture
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import LM
from mmlens.values.least_squares import least_squares
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.model.hooked_model import HookedModel

CLOSE = 0.02
"""The share of a value's standard deviation that a fit may leave unexplained."""
_STREAM = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post",
           "hook_mlp_out")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Wiring:
    """What the units of a layer write, and how they read.

    Attributes:
        writes: what a unit adds to the stream per unit of activation.
        reads: what a unit's pre-activation gains per unit of the stream; None where it is unknown.
        measured: whether `reads` has the norm's gain and size in it.
    """

    writes: Float[Tensor, "unit d"]
    reads: Float[Tensor, "d unit"] | None
    measured: bool


def wirings(model: HookedModel, tower: str, layers: Any, picture: Image.Image) -> dict[int, Wiring]:
    """The wiring of every layer that has one W_in and one W_out, measured on one picture."""
    prefix = "" if tower == LM else f"{tower}."
    points = model.towers[tower].points
    names = [f"{prefix}blocks.{n}.{point}" for n in layers for point in _STREAM]
    with (
        torch.no_grad(),
        capture(
            model, [name for name in names if name in points], lambda x: x[0].float().cpu()
        ) as kept,
    ):
        model.run_to(tower, Prompt(picture))
    out = {}
    for number in layers:
        matrices = _weights(model, tower, number)
        if matrices is not None:
            here = {p: kept[n] for p in _STREAM if (n := f"{prefix}blocks.{number}.{p}") in kept}
            out[number] = _wiring(*matrices, here)
    return out


def _weights(model: HookedModel, tower: str, number: int) -> tuple[Tensor, Tensor] | None:
    """(W_in, W_out) of one layer."""
    part: Any = model.towers[tower]
    try:
        if tower != LM:
            found = part.weights(number)
            return found[0].detach().float().cpu(), found[1].detach().float().cpu()
        mlp = part.root.blocks[number].mlp
        gate = getattr(mlp, "W_gate", None)
        w_in = mlp.W_in if gate is None else gate
        return w_in.detach().float().cpu(), part.units.written(number).cpu()
    except (AddressError, CapabilityError, AttributeError, NotImplementedError):
        return None


def _wiring(w_in: Tensor, w_out: Tensor, here: Mapping[str, Tensor]) -> Wiring:
    scale = _scale(w_out, here)
    writes = w_out if scale is None else w_out * scale
    for stream in _streams(here):
        for centres in (True, False):
            gain = _gain(stream, centres, w_in, here)
            if gain is not None:
                return Wiring(writes, _centred(gain[:, None] * w_in) if centres
                              else gain[:, None] * w_in, True)  # fmt: skip
    return Wiring(writes, w_in if w_in.shape[0] == w_out.shape[1] else None, False)


def _scale(w_out: Tensor, here: Mapping[str, Tensor]) -> Tensor | None:
    """The factor of every dimension between the MLP's sum and what is added to the stream."""
    post, added = here.get("mlp.hook_post"), here.get("hook_mlp_out")
    if post is None or added is None or post.ndim != 2 or post.shape[1] != len(w_out):
        return None
    raw, added = post @ w_out, added - added.mean(0)
    raw = raw - raw.mean(0)
    slope = (raw * added).sum(0) / raw.square().sum(0).clamp(min=1e-20)
    return slope if _explains(raw * slope, added) else None


def _streams(here: Mapping[str, Tensor]) -> list[Tensor]:
    """What the norm before an MLP may read: after attention, or beside it."""
    before, attention = here.get("hook_resid_pre"), here.get("hook_attn_out")
    found = [here.get("hook_resid_mid")]
    if before is not None and attention is not None and before.shape == attention.shape:
        found.append(before + attention)
    return [one for one in (*found, before) if one is not None and one.ndim == 2]


def _gain(stream: Tensor, centres: bool, w_in: Tensor, here: Mapping[str, Tensor]) -> Tensor | None:
    """The gain of the norm over its typical size, if pre-activations are that norm's product.

    pre = (normed * gain) @ W_in + bias is linear in the gain: least squares over some positions and
    units, tested on others.
    """
    pre = here.get("mlp.hook_pre")
    d = stream.shape[1]
    if pre is None or pre.shape != (len(stream), w_in.shape[1]) or w_in.shape[0] != d:
        return None
    normed = _centred(stream.T).T if centres else stream
    size = normed.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
    normed = normed / size
    normed, pre = normed - normed.mean(0), pre - pre.mean(0)  # the biases go
    draw = torch.Generator().manual_seed(0)
    at = torch.randint(len(pre), (6 * d,), generator=draw)
    unit = torch.randint(pre.shape[1], (6 * d,), generator=draw)
    rows, answers = normed[at] * w_in.T[unit], pre[at, unit]
    fit, test = slice(0, 4 * d), slice(4 * d, None)
    gain = least_squares(rows[fit], answers[fit, None])[:, 0]
    if not _explains(rows[test] @ gain, answers[test]):
        return None
    return gain * (1 / size).mean()


def _centred(columns: Tensor) -> Tensor:
    """Each column minus its mean, as a norm that centres the stream reads it."""
    return columns - columns.mean(0)


def _explains(told: Tensor, seen: Tensor) -> bool:
    return bool((told - seen).square().mean() <= CLOSE**2 * seen.square().mean())


@dataclass(frozen=True, eq=False)
class Feeds:
    """The strongest connections of a layer's units.

    Attributes:
        to: (units, values) of the next layer's that each feeds, Int and Float[unit, k].
        by: (units, values) of the layer's before that feed each.
    """

    to: tuple[Tensor, Tensor] | None
    by: tuple[Tensor, Tensor] | None


def feeds(number: int, all_of: Mapping[int, Wiring], k: int) -> Feeds:
    """The `k` connections of largest magnitude to the next layer, and from the one before."""
    return Feeds(_largest(connections(number, all_of), k), _largest(_turned(number, all_of), k))


def connections(number: int, all_of: Mapping[int, Wiring]) -> Float[Tensor, "unit next"] | None:
    """c(u, v) from the units of a layer to those of the next; None where it is unknown."""
    here, there = all_of.get(number), all_of.get(number + 1)
    if here is None or there is None or there.reads is None:
        return None
    return here.writes @ there.reads if here.writes.shape[1] == len(there.reads) else None


def _turned(number: int, all_of: Mapping[int, Wiring]) -> Tensor | None:
    found = connections(number - 1, all_of)
    return None if found is None else found.T


def _largest(values: Tensor | None, k: int) -> tuple[Tensor, Tensor] | None:
    if values is None:
        return None
    units = values.abs().topk(min(k, values.shape[1]), dim=1).indices
    return units, values.gather(1, units)
