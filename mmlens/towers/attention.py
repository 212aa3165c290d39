"""Opened attention: queries, keys, values, pattern and z as hook points.

An attention module keeps its own forward. While one of its points has a hook, the same forward runs
with its attention call intercepted (`mmlens.towers.kernels`), so that q, k, v, the pattern and z
pass through the points. No call can be intercepted inside `nn.MultiheadAttention`, which is
reimplemented here.

Axes, as in TransformerLens: q, k, v and z are [batch, pos, head, d_head] (k and v have their own
number of heads, before grouped queries share them); scores and pattern are [batch, head, query,
key]. All of them are read *and* written; q and k are taken after rotation and per-head norms,
before the scale, where the library scales the scores. Query and key may come from different towers:
cross-attention is opened in the same way.

What is opened is measured (`measuring`): where the opened forward of a module differs from its own,
or computes attention several times, the modules of that model are closed again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlens.towers.kernels import Attending, caught

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

ATTENTION_POINTS = ("hook_q", "hook_k", "hook_v", "hook_pattern", "hook_z")

TOLERANCE = 1e-5
"""Largest difference of opened from closed attention, relative to the largest output."""


def warm(point: HookPoint) -> bool:
    """Whether anything is attached to a hook point, by TransformerLens or by plain torch."""
    return bool(
        point._forward_hooks
        or point._backward_hooks
        or point._forward_pre_hooks
        or point._backward_pre_hooks
    )


class OpenAttention(Attending):
    """Takes the place of one attention module's `forward`; delegates to it while no hook is set.

    Attributes:
        plain: the module's own forward.
        checking: whether forward passes compare opened with closed attention.
        agrees: whether they agreed so far; None before the first one.
    """

    def __init__(self, module: nn.Module, points: Mapping[str, HookPoint]) -> None:
        super().__init__(module, points)
        self.plain = module.forward
        self.checking = False
        self.agrees: bool | None = None

    def install(self) -> OpenAttention:
        """Take the place of the module's forward: an attribute of this instance, not its class."""
        vars(self.module)["forward"] = self
        return self

    def close(self) -> None:
        """Give the module its own forward back."""
        vars(self.module).pop("forward", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.checking:
            self.agrees = self.agrees is not False and self.check(*args, **kwargs)
            return self.plain(*args, **kwargs)
        if any(warm(point) for point in self.points.values()):
            return self.openly(*args, **kwargs)
        return self.plain(*args, **kwargs)

    def openly(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward, with its attention call intercepted."""
        with caught(self):
            self.enter(next(x for x in _inputs(args, kwargs) if isinstance(x, Tensor)))
            return self.plain(*args, **kwargs)

    def check(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the opened forward gives the module's own output, in float32, up to rounding.

        A bias or a rotation that the opened forward omits shows here, however little the rest of
        the model depends on this module.
        """
        twin = self
        half = next(self.module.parameters()).dtype in (torch.float16, torch.bfloat16)
        if half and self.by_interface:
            twin = copy.deepcopy(self)
            twin.module.float()
            args, kwargs = _floats(args), _floats(kwargs)
        closed = twin.plain(*args, **kwargs)
        twin.attended = 0
        try:
            opened = twin.openly(*args, **kwargs)
        except Exception:  # a module that fails when opened stays closed
            return False
        if twin.attended != 1 or isinstance(closed, tuple) != isinstance(opened, tuple):
            return False
        ours, theirs = (o[0] if isinstance(o, tuple) else o for o in (opened, closed))
        if ours.shape != theirs.shape:
            return False
        return bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max())


class MultiheadAttention(OpenAttention):
    """`nn.MultiheadAttention` used as self-attention (open_clip); returns (out, None)."""

    def openly(
        self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        m = self.module
        x = query if m.batch_first else query.transpose(0, 1)
        self.enter(x)
        qkv = F.linear(x, m.in_proj_weight, m.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, m.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = kwargs.get("attn_mask")  # [pos, pos], or one for each picture and head
        mask = mask if mask is None else self.by_head(mask)
        z = self.attend(q, k, v, m.head_dim**-0.5, mask)
        out = m.out_proj(z.transpose(1, 2).flatten(2))
        return out if m.batch_first else out.transpose(0, 1), None


def open_attention(module: nn.Module, points: Mapping[str, HookPoint]) -> OpenAttention:
    """Route q, k, v, pattern and z of an attention module in our copy of a model through points.

    For self-attention and cross-attention, in vision encoders, language models and modules between.
    Run the model inside `measuring` afterwards, which closes what is not exact.

    Args:
        module: called once a layer; what it returns, or the first item of that, is its output.
        points: HookPoints by name, of `ATTENTION_POINTS` and "hook_attn_scores"; any of them.
    """
    kind = MultiheadAttention if isinstance(module, nn.MultiheadAttention) else OpenAttention
    return kind(module, points).install()


def openings(module: nn.Module) -> list[OpenAttention]:
    """The opened attention modules inside of a module."""
    forwards = (vars(m).get("forward") for m in module.modules())
    return [f for f in forwards if isinstance(f, OpenAttention)]


@contextmanager
def measuring(found: Iterable[OpenAttention]) -> Iterator[None]:
    """Forward passes inside compare opened with closed attention; if one differs all are closed.

    A site that is missing in some layers would be harder to interpret than none. No KV cache may be
    written meanwhile, because every module runs twice. A module that no pass reaches is closed,
    too.
    """
    found = list(found)
    for opening in found:
        opening.checking = True
    finished = False
    try:
        yield
        finished = True
    finally:
        differs = not finished or any(opening.agrees is False for opening in found)
        for opening in found:
            opening.checking = False
            if differs or not opening.agrees:
                opening.close()


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a forward pass, the hidden states first."""
    return (*args, kwargs.get("hidden_states"), *kwargs.values())


def _floats(values: Any) -> Any:
    """The same arguments with every floating tensor in float32."""
    if isinstance(values, Tensor):
        return values.float() if values.is_floating_point() else values
    if isinstance(values, tuple):
        return tuple(_floats(value) for value in values)
    if isinstance(values, dict):
        return {name: _floats(value) for name, value in values.items()}
    return values
