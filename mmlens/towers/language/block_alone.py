"""One block of a language model alone, as a function of vectors: no causal mask, no positions.

    y[t] = block(x)[t]        every position sees every position, and none knows where it is

What a block is told beside its vectors (mask, rotary angles, ids of positions) is taken from a pass
of the whole model over as many tokens, and made equal for all positions: the mask is 0 everywhere,
and all have the place of the first, so that queries and keys are turned by one angle, which is none
between them. Of a HookedTransformer the attention is copied with a direction and a table of its
own. That it is so is measured: vectors in another order give outputs in that order, and nothing
else that the block is told (keys of pictures, states of other blocks) moves them. Blocks of another
kind are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.language.language_model import LanguageModel
from mmlens.values.addresses import places
from mmlens.values.arguments import count
from mmlens.values.errors import CapabilityError

Vectors = Float[Tensor, "batch pos d_model"]
OFF = 1e-3
"""So much of the size of the outputs may be off when vectors are exchanged, by rounding."""


class BlockAlone:
    """A block of `lm`; its weights are those of the model, or drawn anew.

    Args:
        layer: the block's number; negative ones count from the last.
        drawn: None for the model's weights; otherwise a seed. Every weight is then a random number
            with the mean and the standard deviation of those of its tensor.

    Raises:
        AddressError: no such layer.
        CapabilityError: the block does more with positions than attend.
    """

    def __init__(self, lm: LanguageModel, layer: int = -1, *, drawn: int | None = None) -> None:
        count(layer, "layer", least=-(10**6), most=10**6)
        self.lm, self.layer = lm, places(range(int(lm.cfg.n_layers)), layer, "layer")[0]
        self.module: nn.Module = lm.root.blocks[self.layer]
        self.weights: dict[str, nn.Parameter] | None = None
        self._told: dict[tuple[int, int], tuple[list[Any], dict[str, Any]]] = {}
        self._check()
        if drawn is not None:
            self.weights = _drawn(self.module, drawn)

    def __call__(self, x: Vectors) -> Vectors:
        """The stream behind the block; gradients pass through, and none reaches its weights."""
        grad = torch.is_grad_enabled()
        shape = (int(x.shape[0]), int(x.shape[1]))
        if shape not in self._told:
            self._told[shape] = self._listened(*shape)
        args, kwargs = self._told[shape]
        given = x.to(self.lm.device, self.lm.dtype)
        with (
            self.lm.bare(),
            torch.set_grad_enabled(grad),
            _with_weights(self.module, self.weights),
            _both_ways(self.module, shape[1]) as it,
        ):
            out = it(given, *args, **kwargs)
        return (out[0] if isinstance(out, tuple) else out).to(x)

    def _listened(self, batch: int, n: int) -> tuple[list[Any], dict[str, Any]]:
        """What the block is told beside its vectors, made the same for all positions."""
        heard: list[Any] = []
        hook = lambda _, args, kwargs: heard.append((args, dict(kwargs)))  # noqa: E731
        lm = self.lm
        with lm.bare():
            handle = self.module.register_forward_pre_hook(hook, with_kwargs=True)
            try:
                ids = torch.zeros(batch, n, dtype=torch.long, device=lm.device)
                stop = self.layer + 1 if self.layer + 1 < lm.cfg.n_layers else None
                lm.forward(ids, torch.ones_like(ids), stop_at_layer=stop, **lm.beside(ids))
            finally:
                handle.remove()
        args, kwargs = heard[0]
        kwargs.pop("hidden_states", None)
        if not lm.is_bridge:  # its mask has rows of the table of rotary angles read
            kwargs = {name: None if name == "attention_mask" else v for name, v in kwargs.items()}
        return (
            [_equal("", one, n) for one in args[1:]],
            {name: _equal(name, one, n) for name, one in kwargs.items()},
        )

    def _check(self) -> None:
        """See the file's text."""
        random, n = torch.Generator().manual_seed(0), 5
        x = torch.randn(1, n, int(self.lm.cfg.d_model), generator=random)
        order, first = torch.tensor([3, 1, 4, 0, 2]), x.clone()
        first[:, 1:] += 1 + torch.rand(1, n - 1, 1, generator=random) * x[:, 1:]
        with torch.no_grad():
            y, mixed = self(x), self(x[:, order])
            crosses = self.lm.crossing is not None and torch.equal(self(first)[:, 0], y[:, 0])
            told = self._told[1, n]
            self._told[1, n] = _moved(list(told[0])), _moved(told[1])
            elsewhere = not torch.equal(self(x), y)
            self._told[1, n] = told
        off = float((y[:, order] - mixed).abs().max())
        if elsewhere or crosses or not off <= OFF * (float(y.std()) or 1.0):
            raise CapabilityError(
                f"Block {self.layer} of this language model does something else with positions than"
                " attend among them (it is recurrent, convolves, or reads what is not among them),"
                " so that it is no layer of patches: take another layer."
            )


def _moved(told: Any) -> Any:
    """What a block is told beside mask and positions, with other numbers: states of others."""
    if isinstance(told, dict):
        kept = ("position_embeddings", "alibi", "position_bias")
        return {key: one if key in kept else _moved(one) for key, one in told.items()}
    if isinstance(told, tuple | list):
        return type(told)(_moved(one) for one in told)
    is_mask = isinstance(told, Tensor) and told.dim() == 4 and not bool(told.any())
    moves = isinstance(told, Tensor) and told.is_floating_point() and not is_mask
    return told + 1 if moves else told


def _equal(name: str, told: Any, n: int) -> Any:
    """What a block is told, with no difference between positions."""
    if isinstance(told, tuple | list) and name == "position_embeddings":
        return tuple(one[..., :1, :].expand(*one.shape[:-2], n, -1) for one in told)
    if not isinstance(told, Tensor):
        return told
    if name in ("position_ids", "alibi", "position_bias"):
        return torch.zeros_like(told)
    if told.dim() == 4 and told.shape[-1] == told.shape[-2] == n:
        return torch.ones_like(told) if told.dtype == torch.bool else torch.zeros_like(told)
    return told


@contextmanager
def _both_ways(block: Any, n: int) -> Iterator[Any]:
    """The block; of a HookedTransformer a copy whose attention looks both ways, on one place."""
    attention: Any = getattr(block, "attn", None)
    if hasattr(block, "original_component") or not hasattr(attention, "attn_type"):
        yield block
        return
    twin, inner = copy.copy(block), copy.copy(attention)
    twin._modules = {**block._modules, "attn": inner}
    inner._buffers = dict(attention._buffers)
    inner._attention_dir_override = "bidirectional"
    for name in ("rotary_cos", "rotary_sin"):
        table = inner._buffers.get(name)
        if table is not None:
            inner._buffers[name] = table[:1].expand(n, -1)
    yield twin


@contextmanager
def _with_weights(module: nn.Module, weights: dict[str, nn.Parameter] | None) -> Iterator[None]:
    """Within this context the module computes with these weights, and then with its own again.

    Parts of a bridge have several names, after which `torch.func.functional_call` does not restore
    them.
    """
    names = {id(own): name for name, own in module.named_parameters()}
    slots = [(part, key, own) for part in module.modules()
             for key, own in part._parameters.items() if own is not None]  # fmt: skip
    try:
        for part, key, own in slots if weights is not None else ():
            part._parameters[key] = (weights or {})[names[id(own)]]
        yield
    finally:
        for part, key, own in slots:
            part._parameters[key] = own


def _drawn(module: nn.Module, seed: int) -> dict[str, nn.Parameter]:
    """Weights by name, with mean and standard deviation of the block's, tensor by tensor."""
    random, found = torch.Generator().manual_seed(seed), {}
    for name, own in module.named_parameters():
        mean, spread = own.detach().float().mean(), own.detach().float().std(correction=0)
        noise = torch.randn(own.shape, generator=random).to(own.device)
        new = (noise * spread + mean).to(own.dtype)
        found[name] = nn.Parameter(new, requires_grad=False)
    return found
