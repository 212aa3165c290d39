"""Where TransformerLens' hook points are inside a vision encoder: tables, and their taps.

A tap is a torch hook that routes one tensor of an unchanged module through a HookPoint
(`vision.tap_hooks`). Only places that can be *written* are tapped, i.e. where replacing the tensor
changes what comes after:

    hook_embed                    patches + positions (convolutional nets: the stem's output)
    blocks.L.hook_resid_pre       what enters block L        [batch, pos, d] or [batch, d, row, col]
    blocks.L.attn.hook_q ...      see `mmlens.towers.attention`
    blocks.L.hook_attn_out        what attention adds to the residual stream (after layer scale)
    blocks.L.mlp.hook_pre, _post  neurons before and after their nonlinearity; W_out reads hook_post
    blocks.L.hook_mlp_out         what the MLP adds to the residual stream (after layer scale)
    blocks.L.convN.hook_pre,_post inside a block of convolutions: before and after the N-th ReLU
    blocks.L.hook_resid_add       shortcut + branch, before the last ReLU of a block that has one
    blocks.L.hook_resid_post      what leaves block L (after that ReLU)

`hook_resid_mid` is not among them: between attention and MLP the residual stream is a local
variable in every library, so it could not be edited there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmlens.towers.attention import ATTENTION_POINTS, OpenAttention, open_attention
from mmlens.towers.vision.tap_hooks import InTap, OutTap, TurnTap

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


@dataclass(frozen=True)
class Layout:
    """Candidate paths of one library, first hit wins; `attn_out` and so on are inside a block."""

    embed: tuple[tuple[str, str], ...]
    blocks: tuple[str, ...]
    attn: tuple[str, ...] = ()
    mlp_in: tuple[str, ...] = ()
    mlp_out: tuple[str, ...] = ()
    attn_adds: tuple[str, ...] = ()
    mlp_adds: tuple[str, ...] = ()
    inner_acts: tuple[str, ...] = ()
    last_act: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    "hf": Layout(
        embed=(("embeddings", "out"), ("embedder", "out")),
        blocks=(
            *("layers", "encoder.layers", "encoder.layer", "model.layer", "layer"),
            "encoder.stages",
        ),
        attn=("attention", "self_attn", "attn"),
        mlp_in=("mlp.fc1", "mlp.gate_proj", "mlp.up_proj", "intermediate.dense"),
        mlp_out=("mlp.fc2", "mlp.down_proj", "output.dense"),
        attn_adds=("layer_scale1", "attention", "self_attn"),
        mlp_adds=("layer_scale2", "mlp"),
        inner_acts=("layer.0.activation", "layer.1.activation"),
        last_act=("activation",),
    ),
    "open_clip": Layout(
        embed=(("ln_pre", "in"), ("avgpool", "out")),
        blocks=("transformer.resblocks", "layer1+layer2+layer3+layer4"),
        attn=("attn",),
        mlp_in=("mlp.c_fc",),
        mlp_out=("mlp.c_proj",),
        attn_adds=("ls_1",),
        mlp_adds=("ls_2",),
        inner_acts=("act1", "act2"),
        last_act=("act3",),
    ),
    "timm": Layout(
        embed=(("stem", "out"), ("norm_pre", "in"), ("pos_drop", "out"), ("maxpool", "out")),
        blocks=("blocks", "layer1+layer2+layer3+layer4", "stages", "layers", "s1+s2+s3+s4"),
        attn=("attn",),
        mlp_in=("mlp.fc1", "mlp.fc1_g"),
        mlp_out=("mlp.fc2",),
        attn_adds=("drop_path1",),
        mlp_adds=("drop_path2",),
        inner_acts=("act1", "act2"),
        last_act=("act3", "act2"),
    ),
}


def find(root: nn.Module, paths: tuple[str, ...]) -> nn.Module | None:
    """The first of several dotted paths that exists and is a module."""
    for path in paths:
        node: Any = root
        for part in path.split("."):
            node = getattr(node, part, None)
        if isinstance(node, nn.Module):
            return node
    return None


def find_blocks(root: nn.Module, layout: Layout) -> list[nn.Module]:
    """The blocks in the order they run; stages of blocks are flattened."""
    for path in layout.blocks:
        parts = path.split("+")
        stages = [stage for part in parts if (stage := find(root, (part,))) is not None]
        if len(stages) < len(parts):
            continue
        out: list[nn.Module] = []
        for stage in stages:
            for child in stage.children():
                inner = getattr(child, "blocks", getattr(child, "layers", None))
                out += list(inner.children()) if isinstance(inner, nn.Module) else [child]
        return out
    return []


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
    for number, block in enumerate(blocks):
        for tap, module, name, pre in _block_taps(block, layout):
            full = f"blocks.{number}.{name}"
            put = tap(point(full), full == last)
            if pre:
                module.register_forward_pre_hook(put, with_kwargs=True)
            else:
                module.register_forward_hook(put)
        _attach_attention(block, layout, f"blocks.{number}.attn.", point)
        if hasattr(block, "lambda_1") and isinstance(find(block, ("drop_path",)), nn.Module):
            names = (f"blocks.{number}.hook_{part}_out" for part in ("attn", "mlp"))
            turn = TurnTap(*(point(name) for name in names))
            block.register_forward_pre_hook(turn.start)
            block.drop_path.register_forward_hook(turn)  # pyright: ignore
    order = {name: rank for rank, name in enumerate(_ORDER)}
    ranked = sorted(points, key=lambda n: (_layer(n), order[n.split(".", 2)[-1]]))
    return {name: points[name] for name in ranked}, blocks


def _block_taps(block: nn.Module, layout: Layout) -> Iterator[tuple[Any, nn.Module, str, bool]]:
    """(tap, module, name, whether it is a pre-hook) for one block, attention kernel aside."""
    yield InTap, block, "hook_resid_pre", True
    if not hasattr(block, "lambda_1"):
        adds, attn = find(block, layout.attn_adds), find(block, layout.attn)
        if adds is not None and attn is not None:
            yield OutTap, adds, "hook_attn_out", False
        adds, mlp = find(block, layout.mlp_adds), find(block, layout.mlp_in)
        if adds is not None and mlp is not None:
            yield OutTap, adds, "hook_mlp_out", False
    mlp_in, mlp_out = find(block, layout.mlp_in), find(block, layout.mlp_out)
    if mlp_in is not None and mlp_out is not None:
        if getattr(mlp_in, "out_features", 0) == getattr(mlp_out, "in_features", 1):
            yield OutTap, mlp_in, "mlp.hook_pre", False
        yield InTap, mlp_out, "mlp.hook_post", True
    yield from _convolution_taps(block, layout)
    yield OutTap, block, "hook_resid_post", False


def _convolution_taps(
    block: nn.Module, layout: Layout
) -> Iterator[tuple[Any, nn.Module, str, bool]]:
    """Taps around the ReLUs of a residual block of convolutions, each of which follows a norm."""
    last = find(block, layout.last_act)
    for number, path in enumerate(layout.inner_acts, 1):
        act = find(block, (path,))
        norm = find(block, (f"bn{number}", path.replace("activation", "normalization")))
        if act in (None, last, norm) or norm is None or isinstance(act, nn.Identity):
            continue
        yield InTap, act, f"conv{number}.hook_pre", True
        yield OutTap, act, f"conv{number}.hook_post", False
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
                if isinstance(getattr(hook, "__self__", hook), OutTap | InTap | TurnTap):
                    del hooks[key]
        if isinstance(vars(module).get("forward"), OpenAttention):
            del module.forward
    return root


def last_activation(block: nn.Module, kind: str) -> nn.Module | None:
    """The activation module after `hook_resid_add`, if the block has one."""
    return find(block, LAYOUTS[kind].last_act)


def mlp_weights(block: nn.Module, kind: str) -> tuple[Tensor, Tensor] | None:
    """(W_in, W_out) of a block's MLP, columns read by and rows written by its neurons."""
    layout = LAYOUTS[kind]
    found = (find(block, paths) for paths in (layout.mlp_in, layout.mlp_out))
    w_in, w_out = (getattr(linear, "weight", None) for linear in found)
    if w_in is None or w_out is None or w_in.shape != w_out.T.shape:
        return None
    return w_in.T, w_out.T


_ORDER = (
    "hook_embed",
    "hook_resid_pre",
    *(f"attn.{name}" for name in ATTENTION_POINTS),
    "hook_attn_out",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    *(f"conv{number}.hook_{side}" for number in (1, 2) for side in ("pre", "post")),
    "hook_resid_add",
    "hook_resid_post",
)


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1
