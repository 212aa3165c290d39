"""Mixtures of experts, with experts' units as units and the router in the open.

    s    = x @ W_router                        "router_logits"    [pos, expert]
    w    = the class's own choice of k of s    "expert_weights"   [pos, expert], 0 where not chosen
    z_e  = act(x @ W_gate_e) * (x @ W_in_e)    "expert_neurons"   [pos, expert, unit], 0 likewise
    out  = sum over e of w_e (z_e @ W_out_e + b_e)

(Shazeer et al. 2017, arXiv 1701.06538, eq. 1; Jiang et al. 2024, Mixtral, arXiv 2401.04088.) The
modules keep their own forward while none of these points has a hook. Written logits are chosen from
by the class's own rule: its router is asked once more, with the identity as its weights. A written
weight of an expert that was not chosen lets it run.

What is opened is measured (`open_mixtures`): where the opened forward of some layer differs from
its own, or what the experts write is not added to the MLP's output, that layer stays closed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlens.towers.attention import warm
from mmlens.values.errors import MMLensError, reason
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

_UNREADABLE = (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError)
"""What a class that is built otherwise raises."""
_EXACT, _ROUNDED = 1e-5, 3e-2
"""Largest difference of the opened from the own output relative to the largest: float32, half."""

Chosen = Int[Tensor, "token slot"]


class Mixture:
    """The mixture of experts of one layer.

    Attributes:
        experts: the module that has the weights of all experts.
        points: its hook points, by their full names.
        agrees: whether opened and own forward agreed so far; None before the first pass.
        why: what did not agree.
    """

    def __init__(self, layer: int, block: nn.Module, experts: Any, router: Any) -> None:
        from transformer_lens.hook_points import HookPoint

        self.experts, self.router, self.plain = experts, router, experts.forward
        names = ("expert_weights", "expert_neurons") + (("router_logits",) if router else ())
        self.points: dict[str, Any] = {}
        self._at: dict[str, Any] = {}
        for name in names:
            self._at[name] = self.points[SITES[name].at(layer)] = point = HookPoint()
            point.name = SITES[name].at(layer)
        self.checking, self.agrees, self.why = False, None, "no pass reaches its experts"
        self._rows = (1, 1)
        self._block = block
        vars(experts)["forward"] = self
        self._handles = [block.register_forward_pre_hook(self._enter, with_kwargs=True)]
        self._handles.append(block.register_forward_hook(self._check_sum, with_kwargs=True))
        if router is not None:
            self._handles.append(router.register_forward_hook(self._routed))

    def close(self) -> None:
        """Give the modules their own forward back."""
        vars(self.experts).pop("forward", None)
        for handle in self._handles:
            handle.remove()

    # -- weights ----------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """How many experts there are."""
        return int(self.experts.down_proj.shape[0])

    @property
    def width(self) -> int:
        """How many units an expert has."""
        return int(self.experts.down_proj.shape[1 if self._transposed else 2])

    @property
    def _transposed(self) -> bool:
        """Whether weights are [expert, in, out] (GPT-OSS), and not [expert, out, in]."""
        return bool(getattr(self.experts, "is_transposed", False))

    def w_out(self, expert: int) -> Float[Tensor, "unit d_model"]:
        """What each unit of an expert writes, per unit of activation and of the expert's weight."""
        weight = self.experts.down_proj[expert]
        return weight if self._transposed else weight.T

    def bias(self, expert: int) -> Tensor | float:
        """What an expert writes beside its units, Float[d_model]; 0.0 without."""
        bias = getattr(self.experts, "down_proj_bias", None)
        return 0.0 if bias is None else bias[expert]

    # -- forward ----------------------------------------------------------------------------------

    def __call__(self, hidden: Tensor, chosen: Chosen, weights: Tensor, *rest: Any) -> Tensor:
        """In place of the forward of the experts: [token, d_model], tokens of all rows in turn."""
        if self.checking:
            return self._check(hidden, chosen, weights)
        if warm(self._at["expert_weights"]):
            chosen, weights = self._weighed(chosen, weights)
        if warm(self._at["expert_neurons"]):
            return self._openly(hidden, chosen, weights)
        return self.plain(hidden, chosen, weights, *rest)

    def _weighed(self, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The weights after their point; an expert that was given one is chosen."""
        dense = weights.new_zeros(len(chosen), self.n).scatter(1, chosen, weights)
        dense = self._through("expert_weights", dense)
        others = dense.detach().scatter(1, chosen, 0.0)
        if bool(others.any()):
            chosen = torch.arange(self.n, device=chosen.device).expand(len(chosen), -1)
        return chosen, dense.gather(1, chosen)

    def _openly(self, hidden: Tensor, chosen: Chosen, weights: Tensor) -> Tensor:
        """The same sum, with the units of all experts at their point."""
        units = hidden.new_zeros(*chosen.shape, self.width)
        for expert in chosen.unique().tolist():
            at = torch.where(chosen == expert)
            units.index_put_(at, self._units(hidden[at[0]], expert).to(units))
        where = chosen[..., None].expand_as(units)
        dense = units.new_zeros(len(units), self.n, self.width).scatter(1, where, units)
        units = self._through("expert_neurons", dense).gather(1, where)
        out = torch.zeros_like(hidden)
        for expert in chosen.unique().tolist():
            at = torch.where(chosen == expert)
            wrote = units[at] @ self.w_out(expert) + self.bias(expert)
            out.index_add_(0, at[0], (wrote * weights[at][:, None]).to(out))
        return out

    def _units(self, hidden: Tensor, expert: int) -> Float[Tensor, "token unit"]:
        """The activations of the units of one expert."""
        m = self.experts
        gated = hasattr(m, "gate_up_proj")
        name = "gate_up_proj" if gated else "up_proj"
        weight, bias = getattr(m, name)[expert], getattr(m, f"{name}_bias", None)
        before = F.linear(hidden, weight.T if self._transposed else weight)
        before = before if bias is None else before + bias[expert]
        if not gated:
            return m.act_fn(before)
        if hasattr(m, "_apply_gate"):
            return m._apply_gate(before)
        gate, value = before.chunk(2, -1)
        return m.act_fn(gate) * value

    def _through(self, name: str, values: Tensor) -> Tensor:
        """Values of all tokens through a point that sees [batch, pos, ...]."""
        return self._at[name](values.unflatten(0, self._rows)).flatten(0, 1)

    def _enter(self, block: nn.Module, args: Any, options: dict[str, Any]) -> None:
        """The pre-hook of the block, which alone sees rows and positions apart."""
        hidden = args[0] if args else options["hidden_states"]
        self._rows = tuple(hidden.shape[:2])

    def _routed(self, router: nn.Module, args: Any, out: Any) -> Any:
        """The hook of the router: logits, weights, indices, chosen anew from written logits."""
        point = self._at["router_logits"]
        if self.checking:
            self._judge(lambda: _same(out, self._choice(out[0])), "its router chooses by more")
        if not warm(point):
            return None
        return self._choice(self._through("router_logits", out[0]))

    def _choice(self, logits: Tensor) -> Any:
        """What the router makes of these logits: a copy of it whose weights are the identity."""
        again = copy.copy(self.router)
        kept = {n: p for n, p in self.router._parameters.items() if p is not None}
        same = {"weight": torch.eye(self.n, device=logits.device, dtype=kept["weight"].dtype)}
        vars(again)["_parameters"] = {n: same.get(n, torch.zeros_like(p)) for n, p in kept.items()}
        again.hidden_dim = self.n
        return type(self.router).forward(again, logits)

    # -- measured ---------------------------------------------------------------------------------

    def _judge(self, measure: Callable[[], bool], why: str) -> None:
        """Take a measurement, of which the first that fails says why the layer stays closed."""
        if self.agrees is False:
            return
        try:
            self.agrees = measure()
        except MMLensError:
            raise  # a mistake of ours and not of the class
        except _UNREADABLE as error:
            self.agrees, why = False, f"{why}: {reason(error).rstrip('.')}"
        self.why = "" if self.agrees else why

    def _check(self, hidden: Tensor, chosen: Chosen, weights: Tensor) -> Tensor:
        own = self.plain(hidden, chosen, weights)
        opened = lambda: _close(self._openly(hidden, chosen, weights), own)  # noqa: E731
        self._judge(opened, "opened, its experts give other values")
        return own

    def _check_sum(self, block: nn.Module, args: Any, options: dict[str, Any], out: Any) -> None:
        """Whether the block's output without the experts is smaller by what they write."""
        if self.checking:
            added = lambda: self._added(block, args, options, out)  # noqa: E731
            self._judge(added, "what its experts write is not added to its output")

    def _added(self, block: nn.Module, args: Any, options: dict[str, Any], out: Any) -> bool:
        wrote: list[Tensor] = []

        def silent(*given: Any) -> Tensor:
            wrote.append(self.plain(*given))
            return torch.zeros_like(wrote[0])

        vars(self.experts)["forward"] = silent
        try:
            without = type(block).forward(block, *args, **options)
        finally:
            vars(self.experts)["forward"] = self
        with_, without = (x[0] if isinstance(x, tuple) else x for x in (out, without))
        return bool(wrote) and _close(with_ - without, wrote[0].view_as(with_), with_)


def open_mixtures(lm: LanguageModel) -> tuple[dict[int, Mixture], dict[int, str]]:
    """The mixtures of a bridge made here by layer, opened; measured by one pass over five tokens.

    A layer whose opened forward is not exact stays closed, and has no points.

    Returns:
        Those that are open; and why others are not.
    """
    found = {at: _mixture(at, block) for at, block in enumerate(lm.root.blocks)}
    opened = {at: one for at, one in found.items() if one is not None}
    if not opened:
        return {}, {}
    ids = torch.arange(5, device=lm.device).unsqueeze(0) % max(1, lm.n_words)
    for one in opened.values():
        one.checking = True
    try:
        with lm.bare():
            lm.forward(ids, torch.ones_like(ids))
    except MMLensError:
        raise
    except _UNREADABLE as error:  # of the class; measurements keep their own
        for one in opened.values():
            one.agrees, one.why = False, f"the model does not run on words: {reason(error)[:-1]}"
    for one in opened.values():
        one.checking = False
        if not one.agrees:
            one.close()
    closed = {at: one.why for at, one in opened.items() if not one.agrees}
    return {at: one for at, one in opened.items() if one.agrees}, closed


def _mixture(layer: int, block: nn.Module) -> Mixture | None:
    """The mixture of a block of a bridge, or None."""
    for module in block.modules():
        if hasattr(module, "original_component"):
            continue  # TransformerLens' wrapping of the block that is looked for
        experts = _inside(module._modules.get("experts"))
        weight = getattr(experts, "down_proj", None)
        if not isinstance(weight, Tensor) or weight.ndim != 3:
            continue
        if len(inspect.signature(experts.forward).parameters) == 3:  # states, chosen, weights
            return Mixture(layer, module, experts, _router(module, len(weight)))
    return None


def _router(block: nn.Module, n: int) -> Any:
    """The module beside the experts that chooses among `n` of them by its own rule, or None."""
    for child in block.children():
        module = _inside(child)
        weight = getattr(module, "weight", None)
        if hasattr(module, "top_k") and isinstance(weight, Tensor) and len(weight) == n:
            return module
    return None


def _inside(module: Any) -> Any:
    """The module of transformers that TransformerLens wrapped."""
    while getattr(module, "original_component", None) is not None:
        module = module.original_component
    return module


def _same(own: Any, again: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(own, again, strict=True))


def _close(ours: Tensor, own: Tensor, size: Tensor | None = None) -> bool:
    """Args: size: what `ours` is a difference of."""
    loose = _ROUNDED if own.dtype in (torch.float16, torch.bfloat16) else _EXACT
    most = (own if size is None else size).abs().max()
    return bool((ours - own).abs().max() <= loose * most)
