"""MLP units and what they write to the residual stream: measured, never assumed.

In a plain MLP, unit k of layer l adds z[k] * W_out[k] to the residual stream. Some architectures
have no such units (state space models), others one MLP per expert, and the MLP may be followed by a
scale (Granite) or a norm (Gemma 2 and 3, OLMo 2, GLM-4). One forward pass over a few words
compares, layer by layer,

    mlp_out  =  z @ W_out + b_out,     scale * (z @ W_out + b_out),     norm(z @ W_out + b_out)

and records the layers where none of these holds. With a norm a unit writes W_out[k] * gain / s
(centred where the norm centres): its direction is given by the weights, but the length depends on
the run, since s is the scale of the MLP's whole output at that position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.language.norms import gain_of, through
from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import Neuron
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

_POINTS = ("mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_attn_out", "hook_resid_pre",
           "hook_resid_mid", "hook_resid_post", "ln1.hook_out", "ln2.hook_in")  # fmt: skip


@dataclass(frozen=True)
class LayerUnits:
    """The units of one layer.

    Attributes:
        width: how many there are; 0 where there are none.
        reason: why there are none.
        pre: whether "mlp.hook_pre" has one coordinate per unit.
        gated: whether a unit's activation is a product of two, a gate and a value.
        scale: the factor of the MLP's output before it is added to the stream.
        norm: the norm between the MLP and the stream (OLMo 2, Gemma 2), or after their sum.
        sums: whether it is after the sum (OPT-350m).
    """

    width: int = 0
    reason: str = ""
    pre: bool = True
    gated: bool = False
    scale: float = 1.0
    norm: nn.Module | None = None
    sums: bool = False


class Units:
    """The measured units of every layer, and the directions they write."""

    def __init__(self, lm: LanguageModel, layers: Sequence[LayerUnits]) -> None:
        self._lm, self.layers = lm, tuple(layers)

    def need(self, name: str, layers: Iterable[int] | None = None, point: str = "post") -> None:
        """Refuse layers without units.

        Args:
            name: of the model, for error messages.
            layers: None for all.
            point: "pre" or "post" the activation function.

        Raises:
            CapabilityError: there are none; the error names the layers that have some.
        """
        chosen = list(range(len(self.layers)) if layers is None else layers)
        for layer in chosen:
            one = self.layers[layer]
            if not one.width:
                raise CapabilityError(
                    f"Layer {layer} of {name!r} has no MLP units: {one.reason}. {self._others()}"
                )
            if point == "pre" and not one.pre:
                raise CapabilityError(
                    f"Before the activation function layer {layer} of {name!r} has no coordinate"
                    " per unit: write point='post', or the site 'neurons'."
                )
        widths = {self.layers[layer].width for layer in chosen}
        if len(widths) > 1:
            raise CapabilityError(
                f"The layers of {name!r} have different numbers of units"
                f" ({', '.join(map(str, sorted(widths)))}): ask about one layer at a time."
            )

    def need_at(self, name: str, site: Site, layers: Iterable[int | None] | None = None) -> None:
        """Refuse layers without units where a site of the language model is made of units.

        Raises:
            CapabilityError: see `need`.
        """
        if site.in_lm and site.axes[-1] == "unit":
            chosen = None if layers is None else [at for at in layers if at is not None]
            self.need(name, chosen, "pre" if site.point.endswith("hook_pre") else "post")

    def find(self, name: str, neurons: Iterable[Neuron]) -> None:
        """Refuse neurons that do not exist.

        Raises:
            AddressError, CapabilityError: no such layer or unit; a layer without units.
        """
        for neuron in neurons:
            instance(neuron, "neuron", Neuron, "a Neuron, as in Neuron(1, 5)", error=AddressError)
            if not 0 <= neuron.layer < len(self.layers):
                raise AddressError(
                    f"There is no neuron {neuron}: {name!r} has {len(self.layers)} layers."
                )
            self.need(name, [neuron.layer])
            width = self.layers[neuron.layer].width
            if not 0 <= neuron.unit < width:
                raise AddressError(
                    f"There is no neuron {neuron}: {name!r} has {len(self.layers)} layers of"
                    f" {width} units, L0.0 to {Neuron(len(self.layers) - 1, width - 1)}."
                )

    def written(
        self, layer: int, units: Sequence[int] | slice = slice(None)
    ) -> Float[Tensor, "unit d_model"]:
        """What units write to the stream per unit of activation; with a norm, the direction."""
        one, lm = self.layers[layer], self._lm
        rows = lm.root.blocks[layer].mlp.W_out[units].detach().float() * one.scale
        if one.norm is None:
            return rows
        gain, centres = gain_of(one.norm, lm.cfg.d_model, lm.device, lm.dtype)
        return through(gain, centres, rows)

    def behind(
        self, layer: int, post: Float[Tensor, "pos unit"]
    ) -> tuple[Float[Tensor, " pos"], Float[Tensor, "pos d_model"]]:
        """The length of what units write in a run, relative to `written`, and the rest of the sum.

        Args:
            post: the activations of all units of the layer at some positions.

        Raises:
            CapabilityError: the norm follows the sum with the stream, so there is no such number.
        """
        one, lm = self.layers[layer], self._lm
        mlp, bias = lm.root.blocks[layer].mlp, post.new_zeros(lm.cfg.d_model).float()
        if isinstance(getattr(mlp, "b_out", None), torch.Tensor):
            bias = mlp.b_out.detach().float()
        if one.norm is None:
            return torch.ones_like(post[:, 0]).float(), (bias * one.scale).expand(len(post), -1)
        if one.sums:
            raise CapabilityError(
                f"In layer {layer} a norm follows the sum of stream and MLP, so what a unit"
                " writes is no separate term there: ablate it and compare."
            )
        gain, centres = gain_of(one.norm, lm.cfg.d_model, lm.device, lm.dtype)
        whole = post.float() @ mlp.W_out.detach().float() + bias
        zero = _normed(lm, one.norm, torch.zeros_like(whole[:1]))[0]
        raw = through(gain, centres, whole)
        length = ((_normed(lm, one.norm, whole) - zero) * raw).sum(-1) / raw.pow(2).sum(-1)
        return length, length[:, None] * through(gain, centres, bias) + zero

    @property
    def width(self) -> int:
        """How many units the first layer that has some has; 0 where none has."""
        return next((one.width for one in self.layers if one.width), 0)

    @property
    def normed(self) -> list[int]:
        """The layers with a norm after the MLP."""
        return [i for i, one in enumerate(self.layers) if one.norm is not None]

    def _others(self) -> str:
        having = [str(i) for i, one in enumerate(self.layers) if one.width]
        if not having:
            return "Ask at 'mlp_out', 'resid_post' or 'z' instead."
        shown = ", ".join(having[:8]) + (", ..." if len(having) > 8 else "")
        return f"Layers with units: {shown}; ask about these (layer=[{having[0]}])."


def check_units(lm: LanguageModel) -> Units:
    """One short forward pass over eight words."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(max(1, lm.n_words), (1, 8), generator=draw).to(lm.device)
    known = lm.root.hook_dict
    names = [f"blocks.{i}.{p}" for i in range(lm.cfg.n_layers) for p in _POINTS]
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda tensor, hook: kept.__setitem__(name, tensor.detach()[0].float())

    hooks = [(name, keep(name)) for name in names if name in known]
    with lm.root.hooks(fwd_hooks=hooks):
        lm.forward(ids, torch.ones_like(ids))
    return Units(lm, [_layer(lm, i, kept) for i in range(lm.cfg.n_layers)])


def _layer(lm: LanguageModel, layer: int, kept: dict[str, torch.Tensor]) -> LayerUnits:
    block = lm.root.blocks[layer]
    here = {point: kept.get(f"blocks.{layer}.{point}") for point in _POINTS}
    post, out, mlp = here["mlp.hook_post"], here["hook_mlp_out"], getattr(block, "mlp", None)
    weight = w_out(block)
    if weight is None or post is None or out is None:
        return LayerUnits(reason=_missing(block, mlp))
    if post.shape[-1] != weight.shape[0]:
        return LayerUnits(
            reason=f"'mlp.hook_post' has {post.shape[-1]} coordinates and W_out {len(weight)} rows"
        )
    bias = getattr(mlp, "b_out", None)
    whole = post @ weight.float() + (bias.float() if isinstance(bias, torch.Tensor) else 0.0)
    close = _Close(lm.dtype)
    norm = None
    scale = float((out * whole).sum() / whole.pow(2).sum())
    scale = 1.0 if close(whole, out) else scale
    if not close(scale * whole, out):
        norm, scale = _behind(lm, layer), 1.0
        if norm is None or not close(_normed(lm, norm, whole), out):
            return LayerUnits(reason="what they write does not add up to 'mlp_out'")
    sums = not _added(here, out, close)
    if sums:
        norm = _norm_of_sums(lm, block, here, out, close) if norm is None else None
        if norm is None:
            return LayerUnits(reason="what the MLP writes is not added to the stream")
    before = here["mlp.hook_pre"]
    pre = before is not None and before.shape == post.shape
    gated = getattr(mlp, "W_gate", None) is not None
    return LayerUnits(len(weight), "", pre, gated, scale, norm, sums)


def w_out(block: Any) -> torch.Tensor | None:
    """W_out of a block, Float[unit, d_model]; None where it has none that can be read."""
    try:
        return getattr(getattr(block, "mlp", None), "W_out", None)
    except NotImplementedError:  # packed or offloaded weights
        return None


def _missing(block: Any, mlp: Any) -> str:
    if mlp is None:
        return f"it has no MLP ({type(block).__name__})"
    inside = [type(module).__name__ for module in mlp.modules()]
    if any("moe" in name.lower() or "experts" in name.lower() for name in inside):
        return "it is a mixture of experts, whose units mmlens does not take apart"
    return "its MLP has no single W_out that can be read"


class _Close:
    """Whether two values are equal up to the rounding of a dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.tolerance = 5e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-3

    def __call__(self, a: torch.Tensor, b: torch.Tensor, size: float = 0.0) -> bool:
        """Args: size: of the numbers that `a` is a difference of."""
        return bool((a - b).abs().max() <= self.tolerance * max(float(b.abs().max()), size))


def _behind(lm: LanguageModel, layer: int) -> nn.Module | None:
    """The module whose output is 'mlp_out', where that is not the MLP itself."""
    point = lm.root.hook_dict[f"blocks.{layer}.hook_mlp_out"]
    block = lm.root.blocks[layer]
    owners = [m for m in block.modules() if m._modules.get("hook_out") is point]
    return owners[0] if owners else getattr(block, "ln2_post", None)


def _normed(lm: LanguageModel, norm: nn.Module, whole: torch.Tensor) -> torch.Tensor:
    return norm(whole[None].to(lm.dtype))[0].float()


def _added(here: dict[str, Any], out: torch.Tensor, close: _Close) -> bool:
    """Whether the stream after the block is the stream before it plus what was written."""
    after, before, mid = here["hook_resid_post"], here["hook_resid_pre"], here["hook_resid_mid"]
    if mid is None and before is not None and here["hook_attn_out"] is not None:
        mid = before + here["hook_attn_out"]
    if mid is None or after is None:
        return False
    return close(after - mid, out, float(after.abs().max()))


def _norm_of_sums(
    lm: LanguageModel, block: Any, here: dict[str, Any], out: torch.Tensor, close: _Close
) -> nn.Module | None:
    """The norm after the sum of stream and MLP (OPT-350m), if the block has one."""
    before, summed, after = here["ln1.hook_out"], here["ln2.hook_in"], here["hook_resid_post"]
    norm = getattr(block, "ln2", None)
    if norm is None or before is None or summed is None or before.shape != summed.shape:
        return None
    adds = close(summed - before, out, float(summed.abs().max()))
    return norm if adds and close(_normed(lm, norm, summed), after) else None
