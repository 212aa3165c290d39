"""One run of a model in which everything between chosen nodes is linear: the local replacement.

Attention patterns and the scales of norms are held at what they were in this run, and an activation
y = s(x) that is no node counts as x times the constant y / x (the factors of a gated MLP share
alike): what RelP (Jafari et al. 2025, arXiv 2508.21258) and `relevance_rules` do. So each node's
value is a sum over the nodes before it, up to biases,

    t = sum over s of E[s, t] + biases,      E[s, t] = a_s dt/da_s   with all other nodes constant

which Ameisen et al. (2025, Circuit Tracing) call the local replacement model, with transcoders in
place of MLPs. Nodes are units at positions (of MLPs, of dictionaries), the errors of dictionaries,
and the vectors that enter. A unit of an MLP hands on what enters it by the constant factor of its
activation function; an active unit of a dictionary has the factor 1. The sums are checked for every
node that is asked about, and a model of which they are not true is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.lrp import MISSING, activation_hooks
from mmlens.methods.relevance_rules import RelevanceRules
from mmlens.model import hooking, readouts
from mmlens.model.targets import Target, finite
from mmlens.runtime.backward import wide
from mmlens.values.errors import CapabilityError
from mmlens.values.graph_tables import ERROR, INPUT, UNIT
from mmlens.values.labels import LM
from mmlens.values.sites import SITES, Site

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

AT_ONCE, ENTRIES = 16, 20_000_000
"""Rows that one backward pass gives, and how many numbers these may be."""


@dataclass
class Candidates:
    """Those at one hook point: units, or positions where vectors enter or errors stand.

    Attributes:
        kind: "unit", "error" or "input".
        at: its layer.
        leaf: what the rest of the run reads. before: the same as a function of earlier nodes.
        first: the number of its first candidate. crop: that of its first picture (or crop).
    """

    site: Site
    at: int
    kind: str
    leaf: Tensor
    before: Tensor
    first: int = 0
    crop: int = 0

    @property
    def shape(self) -> torch.Size:
        """[crop, pos, unit], or [crop, pos]."""
        return self.leaf.shape if self.kind == UNIT else self.leaf.shape[:-1]


@dataclass(frozen=True)
class Rows:
    """What enters some nodes.

    Attributes:
        direct: Float[row, candidate]. biases, value: Float[row].
    """

    direct: Tensor
    biases: Tensor
    value: Tensor


class LinearReplacement:
    """The run, kept with its graph, so that rows of E can be asked for.

    Attributes:
        parts: in running order.
        size: how many candidates there are; the number of the word itself.
    """

    def __init__(
        self, model: HookedModel, reading: Any, aimed: Target, sites: Sequence[Site]
    ) -> None:
        self.model, self.aimed, self.parts = model, aimed, list[Candidates]()
        hooks: list[tuple[str, Any]] = []
        towers = dict.fromkeys([*(site.tower for site in sites), LM])
        for tower in towers:
            hooks += self._entering(tower, reading, len(towers) > 1)
            for layer in hooking.layers(model, SITES[f"{_in(tower)}resid_pre"]):
                name = SITES[f"{_in(tower)}pattern"].at(layer)
                hooks += [(name, _held)] if name in hooking.points(model) else []
        hooks += activation_hooks(model)
        for site in sites:
            for layer in unit_layers(model, site):
                hooks.append((site.at(layer), partial(self._node, site, layer, UNIT)))
                if site.of_dictionary:
                    error = SITES[f"{_in(site.tower)}sae_error"]
                    hooks.append((error.at(layer), partial(self._node, error, layer, ERROR)))
        rules = RelevanceRules()
        with torch.enable_grad(), model.hooks(fwd_hooks=hooks), rules:
            row = readouts.answers(model, reading, [aimed])[0]
        finite(row.detach(), f"the answer of {model.name!r}")
        with torch.enable_grad():
            self.word = aimed.number(wide(row))
        self.biases = [one for one in rules.biases if one.requires_grad]
        self.size = 0
        for part in self.parts:
            part.first, self.size = self.size, self.size + part.shape.numel()

    def rows(self, targets: Sequence[int]) -> Rows:
        """What enters these candidates, or the word (the number `size`).

        Raises:
            CapabilityError: the sums are not true of this model.
        """
        ends = torch.stack([self._end(target) for target in targets])
        leaves = [part.leaf for part in self.parts]
        if ends.requires_grad:
            grads = torch.autograd.grad(
                ends, [*leaves, *self.biases], torch.eye(len(ends)).to(ends), retain_graph=True,
                allow_unused=True, is_grads_batched=True,
            )  # fmt: skip
        else:
            grads = [None] * (len(leaves) + len(self.biases))
        given, value = [], wide(ends.detach())
        for part, grad in zip(self.parts, grads, strict=False):
            if grad is None:
                given.append(value.new_zeros(len(ends), part.shape.numel()))
                continue
            product = wide(part.leaf.detach()) * wide(grad)
            product = product if part.kind == UNIT else product.sum(-1)
            given.append(product.flatten(1).to(value))
        biases = torch.zeros_like(value)
        for bias, grad in zip(self.biases, grads[len(leaves) :], strict=True):
            if grad is not None:
                biases += (
                    torch.where(grad == 0, 0.0, wide(bias.detach()) * wide(grad)).flatten(1).sum(1)
                )
        direct = finite(torch.cat(given, 1), "the edges")
        self._check(direct, biases, value)
        return Rows(direct, biases, value)

    def at_once(self) -> int:
        """How many rows are asked for together."""
        return max(1, min(AT_ONCE, ENTRIES // max(1, self.size)))

    def where(self, candidate: int) -> tuple[Candidates, tuple[int, ...]]:
        """The part of a candidate and its index in the part's shape."""
        part = next(one for one in reversed(self.parts) if one.first <= candidate)
        index = torch.unravel_index(torch.tensor(candidate - part.first), part.shape)
        return part, tuple(map(int, index))

    def _end(self, target: int) -> Tensor:
        if target == self.size:
            return self.word
        part, index = self.where(target)
        return wide(part.before)[index].to(self.word.dtype)

    def _check(self, direct: Tensor, biases: Tensor, value: Tensor) -> None:
        missing = (value - direct.sum(1) - biases).abs()
        size = direct.abs().sum(1) + biases.abs() + value.abs()
        allowed = 10 * MISSING if self.model.answer_dtype in _HALF else MISSING
        if bool((missing > allowed * size).any()):
            worst = int((missing - allowed * size).argmax())
            raise CapabilityError(
                f"In {self.model.name!r} what enters a node does not sum to its value (off by"
                f" {float(missing[worst]):.3g} of {float(size[worst]):.3g}): it has an operation"
                " that is not linear when patterns and norms are held (a mixture of experts, a"
                " state space, attention without a pattern): write mm.attribute(...)."
            )

    def _node(self, site: Site, layer: int, kind: str, tensor: Tensor, hook: Any) -> Tensor:
        if tensor.ndim != 3:
            raise CapabilityError(
                f"{hook.name!r} of {self.model.name!r} holds {tuple(tensor.shape)}, and a graph"
                " takes units at positions: name a site of a transformer, as in sites=['neurons']."
            )
        leaf = tensor.detach().clone().requires_grad_()
        before = [len(one.leaf) for one in self.parts if (one.site, one.at) == (site, layer)]
        self.parts.append(Candidates(site, layer, kind, leaf, tensor, crop=sum(before)))
        return leaf

    def _entering(self, tower: str, reading: Any, more: bool) -> list[tuple[str, Any]]:
        """The hook where vectors enter a tower: pictures into the first, and words beside them."""
        site = SITES[f"{_in(tower)}resid_pre"]
        first = next(iter(hooking.layers(self.model, site)))
        if tower != LM or not more:
            return [(site.at(first), partial(self._node, site, first, INPUT))]

        def words(tensor: Tensor, hook: Any) -> Tensor:
            leaf = self._node(site, first, INPUT, tensor, hook)
            return torch.where(reading.is_picture[..., None].to(tensor.device), tensor, leaf)

        return [(site.at(first), words)]


_HALF = (torch.float16, torch.bfloat16)


def unit_layers(model: HookedModel, site: Site) -> list[int]:
    """The layers of a site that have units.

    Raises:
        CapabilityError: none has.
    """
    there = [site.layer] if site.layer is not None else list(hooking.layers(model, site))
    if site.tower == LM and not site.of_dictionary:
        lm: Any = model.towers[LM]
        there = [layer for layer in there if lm.units.layers[layer].width]
    if not there:
        raise CapabilityError(
            f"No layer of {model.name!r} has units at {site.name!r}: attach a dictionary, and write"
            " sites=['sae']."
        )
    hooking.check_places(model, site, there)
    return there


def _in(tower: str) -> str:
    return "" if tower == LM else f"{tower}."


def _held(tensor: Tensor, hook: Any) -> Tensor:
    return tensor.detach()
