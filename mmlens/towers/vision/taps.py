"""TransformerLens' hook points inside of a vision encoder, at the places of its layout.

A tap is a torch hook that routes one tensor of an unchanged module through a HookPoint
(`vision.tap_hooks`). Only places that can be *written* are tapped, i.e. where replacing the tensor
changes what comes after:

    hook_embed                    patches + positions (convolutional nets: the stem's output)
    blocks.L.hook_resid_pre       what enters block L        [batch, pos, d] or [batch, d, row, col]
    blocks.L.attn.hook_q ...      see `mmlens.towers.attention`
    blocks.L.hook_attn_out        what attention adds to the residual stream (after layer scale)
    blocks.L.mlp.hook_pre, _post  neurons before and after their nonlinearity; W_out reads hook_post
    blocks.L.hook_mlp_out         what the MLP adds to the residual stream (after layer scale)
    blocks.L.convN.hook_pre,_post inside a block of convolutions: before and after the N-th
                                  nonlinearity (ReLU, SiLU, ...) between them
    blocks.L.hook_resid_add       shortcut + branch, before the last ReLU of a block that has one
    blocks.L.hook_resid_post      what leaves block L (after that ReLU)

`hook_resid_mid` is not among them: between attention and MLP the residual stream is a local
variable in every library, so it could not be edited there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmlens.towers.attention import ATTENTION_POINTS, OpenAttention, open_attention
from mmlens.towers.vision.block_acts import block_acts
from mmlens.towers.vision.layouts import LAYOUTS, Layout, Tail, find, find_blocks
from mmlens.towers.vision.tap_hooks import Apart, InTap, OutTap, TurnTap

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


def attach(
    root: nn.Module, kind: str | Layout, last: str = ""
) -> tuple[dict[str, HookPoint], list[nn.Module]]:
    """Taps every place the module has; returns the points in running order, and the blocks.

    Args:
        kind: the library, or a layout of one's own.
        last: the point whose value is the encoder's output; forward passes end there.
    """
    from transformer_lens.hook_points import HookPoint

    layout, points = kind if isinstance(kind, Layout) else LAYOUTS[kind], {}

    def point(name: str) -> HookPoint:
        points[name] = HookPoint()
        points[name].name = name
        return points[name]

    for path, side in layout.embed:
        module = find(root, (path,))
        if module is not None and side == "out":
            module.register_forward_hook(OutTap(point("hook_embed"), last == "hook_embed"))
            break
        if module is not None:
            tap = InTap(point("hook_embed"), last == "hook_embed")
            module.register_forward_pre_hook(tap, with_kwargs=True)
            break
    blocks = find_blocks(root, layout)
    if getattr(getattr(root, "config", None), "model_type", "") == "pixtral":
        apart = Apart()
        root.register_forward_pre_hook(apart.count, with_kwargs=True)
        root.transformer.register_forward_pre_hook(apart, with_kwargs=True)  # pyright: ignore
    for number, block in enumerate(blocks):
        for tap, module, name, pre in _block_taps(block, layout):
            full = f"blocks.{number}.{name}"
            put = tap(point(full), full == last)
            if pre:
                module.register_forward_pre_hook(put, with_kwargs=True)
            else:
                module.register_forward_hook(put)
        _attach_attention(block, layout, f"blocks.{number}.attn.", point)
        if _adds_by_turns(block, layout):
            names = (f"blocks.{number}.hook_{part}_out" for part in ("attn", "mlp"))
            turn = TurnTap(*(point(name) for name in names))
            block.register_forward_pre_hook(turn.start)
            block.drop_path.register_forward_hook(turn)  # pyright: ignore
    ranked = sorted(points, key=lambda name: (_layer(name), _rank(name.split(".", 2)[-1])))
    return {name: points[name] for name in ranked}, blocks


def _block_taps(block: nn.Module, layout: Layout) -> Iterator[tuple[Any, nn.Module, str, bool]]:
    """(tap, module, name, whether it is a pre-hook) for one block, attention kernel aside."""
    first, last = (block[0], block[-1]) if isinstance(block, Tail) else (block, block)
    yield InTap, first, "hook_resid_pre", True
    mlp_in, attn = find(block, layout.mlp_in), find(block, layout.attn)
    if not _adds_by_turns(block, layout):
        for adds, part, name in (
            (find(block, layout.attn_adds), attn, "hook_attn_out"),
            (find(block, layout.mlp_adds), mlp_in, "hook_mlp_out"),
        ):
            if adds is not None and part is not None:
                yield OutTap, adds, name, False
    yield from _mlp_taps(block, layout)
    yield from _convolution_taps(block, layout)
    yield OutTap, last, "hook_resid_post", False


def _adds_by_turns(block: nn.Module, layout: Layout) -> bool:
    """Whether what attention and MLP add passes one module, first the one, then the other."""
    if find(block, ("drop_path",)) is None:
        return False
    apart = find(block, layout.attn_adds) is not None
    return hasattr(block, "lambda_1") or (not apart and find(block, layout.attn) is not None)


def _mlp_taps(block: nn.Module, layout: Layout) -> Iterator[tuple[Any, nn.Module, str, bool]]:
    """Before and after the nonlinearity of an MLP.

    What the first matrix puts out is what the nonlinearity reads, unless a convolution is between
    them (PVT, Segformer) or half of it is a gate (SwiGLU in one matrix).
    """
    mlp_in, mlp_out = find(block, layout.mlp_in), find(block, layout.mlp_out)
    if mlp_in is None or mlp_out is None:
        return
    straight = _width(mlp_in, "out") == _width(mlp_out, "in")
    if straight and find(block, ("mlp.dwconv",)) is None:
        yield OutTap, mlp_in, "mlp.hook_pre", False
    elif (act := find(block, layout.mlp_acts)) is not None:
        yield InTap, act, "mlp.hook_pre", True
    yield InTap, mlp_out, "mlp.hook_post", True


def _width(module: nn.Module, side: str) -> int | None:
    """Features or channels that a matrix or a convolution reads ("in") or puts out ("out")."""
    names = (f"{side}_features", f"{side}_channels")
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _convolution_taps(
    block: nn.Module, layout: Layout
) -> Iterator[tuple[Any, nn.Module, str, bool]]:
    """Taps around the nonlinearities of a block of convolutions.

    The one that a layout calls the last also gets `hook_resid_add`; which of both names is right
    is measured (`measure.not_last`).
    """
    for number, act in enumerate(_between_convolutions(block, layout), 1):
        yield InTap, act, f"conv{number}.hook_pre", True
        yield OutTap, act, f"conv{number}.hook_post", False
    last = last_activation(block, layout)
    if last is not None:
        yield InTap, last, "hook_resid_add", True


def _attach_attention(block: nn.Module, layout: Layout, prefix: str, point: Any) -> None:
    module = find(block, layout.attn)
    if module is not None:
        open_attention(module, {name: point(prefix + name) for name in ATTENTION_POINTS})


def untap(root: nn.Module) -> nn.Module:
    """Removes the taps that a module has from an earlier wrapping."""
    for module in root.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", hook), OutTap | InTap | TurnTap | Apart):
                    del hooks[key]
        if isinstance(vars(module).get("forward"), OpenAttention):
            del module.forward
    return root


def last_activation(block: nn.Module, layout: Layout) -> nn.Module | None:
    """The nonlinearity after the residual sum, if the block may have one."""
    found = find(block, layout.last_act)
    acts = _between_convolutions(block, layout)
    return found if any(found is act for act in acts) else None


def _between_convolutions(block: nn.Module, layout: Layout) -> list[nn.Module]:
    """The nonlinearities of a block's convolutions, without that of its MLP."""
    own = find(block, layout.mlp_acts) if find(block, layout.mlp_in) is not None else None
    return [act for act in block_acts(block) if act is not own]


def last_number(block: nn.Module, kind: str) -> int:
    """N of the `convN` points around that nonlinearity; 0 where there is none."""
    layout = LAYOUTS[kind]
    last, acts = last_activation(block, layout), _between_convolutions(block, layout)
    return next((n for n, act in enumerate(acts, 1) if act is last), 0)


def mlp_weights(block: nn.Module, kind: str) -> tuple[Tensor, Tensor] | None:
    """(W_in, W_out) of a block's MLP, columns read by and rows written by its neurons."""
    layout = LAYOUTS[kind]
    found = (find(block, paths) for paths in (layout.mlp_in, layout.mlp_out))
    w_in, w_out = (_matrix(getattr(linear, "weight", None)) for linear in found)
    if w_in is None or w_out is None or w_in.shape != w_out.T.shape:
        return None
    return w_in.T, w_out.T


def _matrix(weight: Tensor | None) -> Tensor | None:
    """A convolution of 1 x 1 as the matrix that it is."""
    return weight.flatten(1) if weight is not None and weight.shape[2:] == (1, 1) else weight


_ORDER = (
    "hook_embed",
    "hook_resid_pre",
    *(f"attn.{name}" for name in ATTENTION_POINTS),
    "hook_attn_out",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "conv",
    "hook_resid_add",
    "hook_resid_post",
)
_CONV = re.compile(r"conv(\d+)\.hook_(pre|post)")


def _rank(place: str) -> tuple[int, int, bool]:
    """In the order in which a block computes them."""
    conv = _CONV.fullmatch(place)
    if conv is None:
        return _ORDER.index(place), 0, False
    return _ORDER.index("conv"), int(conv[1]), conv[2] == "post"


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1
