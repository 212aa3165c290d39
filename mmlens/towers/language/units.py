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
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.language.norms import gain_of, through
from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import DICTIONARY, LM, Neuron
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel


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
        experts: how many experts have units of their own there (`language.mixture`).
        of_expert: how many units each of them has.
    """

    width: int = 0
    reason: str = ""
    pre: bool = True
    gated: bool = False
    scale: float = 1.0
    norm: nn.Module | None = None
    sums: bool = False
    experts: int = 0
    of_expert: int = 0


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
        if site.of_dictionary:
            return  # which layers have one is known where they are named (`hooking.layers`)
        if site.of_experts:
            for layer in () if layers is None else layers:
                self._need_experts(name, layer)
        elif site.in_lm and site.axes[-1] == "unit":
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
            if neuron.tower == DICTIONARY:
                self._find_in_dictionary(name, neuron)
                continue
            if neuron.tower != LM:
                raise AddressError(
                    f"{neuron} is no neuron of the language model of {name!r}: write Neuron(3, 17)."
                )
            if neuron.expert is not None:
                self._find_in_expert(name, neuron)
                continue
            self.need(name, [neuron.layer])
            width = self.layers[neuron.layer].width
            if not 0 <= neuron.unit < width:
                raise AddressError(
                    f"There is no neuron {neuron}: {name!r} has {len(self.layers)} layers of"
                    f" {width} units, L0.0 to {Neuron(len(self.layers) - 1, width - 1)}."
                )

    def _need_experts(self, name: str, layer: int | None) -> None:
        having = [i for i, one in enumerate(self.layers) if one.experts]
        if layer is not None and layer not in having:
            shown = ", ".join(map(str, having)) or "none"
            raise CapabilityError(
                f"Layer {layer} of {name!r} has no experts whose units are read; layers with such:"
                f" {shown}."
            )

    def _find_in_expert(self, name: str, neuron: Neuron) -> None:
        self._need_experts(name, neuron.layer)
        one = self.layers[neuron.layer]
        if not (0 <= (neuron.expert or 0) < one.experts and 0 <= neuron.unit < one.of_expert):
            last = Neuron(neuron.layer, one.of_expert - 1, expert=one.experts - 1)
            raise AddressError(
                f"There is no neuron {neuron}: layer {neuron.layer} of {name!r} has {one.experts}"
                f" experts of {one.of_expert} units, up to {last}."
            )

    def _find_in_dictionary(self, name: str, neuron: Neuron) -> None:
        known = self._lm.dictionaries
        if neuron.layer not in known:
            shown = f"those of layers {', '.join(map(str, known))}" if known else "none"
            raise AddressError(
                f"There is no {neuron}: the language model of {name!r} has {shown} of dictionaries:"
                " attach one, model.attach(dictionary, at=...)."
            )
        if not 0 <= neuron.unit < known[neuron.layer].dictionary.n_units:
            last = Neuron(neuron.layer, known[neuron.layer].dictionary.n_units - 1, DICTIONARY)
            raise AddressError(f"There is no {neuron}: the last unit there is {last}.")

    def written(
        self,
        layer: int,
        units: Sequence[int] | slice = slice(None),
        expert: int | None = None,
        tower: str = LM,
    ) -> Float[Tensor, "unit d_model"]:
        """What units write to the stream per unit of activation; with a norm, the direction.

        Args:
            expert: whose units they are; they write as much again times the expert's weight.
            tower: "sae" for the units of the layer's dictionary: its rows, which are directions
                too where it scales activations.

        Raises:
            CapabilityError: a dictionary that reconstructs no part of the stream.
        """
        one, lm = self.layers[layer], self._lm
        if tower == DICTIONARY:
            attached = lm.dictionaries[layer]
            if attached.dictionary.d_out != lm.cfg.d_model:
                raise CapabilityError(
                    f"The dictionary at {attached.out!r} writes {attached.dictionary.d_out}"
                    f" coordinates and the stream has {lm.cfg.d_model}: its units say no words."
                )
            return attached.dictionary.W_dec[units].detach().float()
        if expert is not None:
            return lm.mixtures[layer].w_out(expert)[units].detach().float()
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
        zero = normed(lm, one.norm, torch.zeros_like(whole[:1]))[0]
        raw = through(gain, centres, whole)
        length = ((normed(lm, one.norm, whole) - zero) * raw).sum(-1) / raw.pow(2).sum(-1)
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
        mixed = next((i for i, one in enumerate(self.layers) if one.experts), None)
        if not having and mixed is not None:
            return (
                "Ask at the site 'expert_neurons', whose units are named as in"
                f" Neuron({mixed}, 5, expert=0)."
            )
        if not having:
            return "Ask at 'mlp_out', 'resid_post' or 'z' instead."
        shown = ", ".join(having[:8]) + (", ..." if len(having) > 8 else "")
        return f"Layers with units: {shown}; ask about these (layer=[{having[0]}])."


def normed(lm: LanguageModel, norm: nn.Module, whole: torch.Tensor) -> torch.Tensor:
    """Rows Float[pos, d_model] after a norm of the model."""
    return norm(whole[None].to(lm.dtype))[0].float()
