"""Where TransformerLens's names live inside a vision encoder: tables, and the taps that go there.

A `Tap` is a torch hook that routes one tensor of an unchanged module through a HookPoint; while
nothing is attached to the point it does nothing at all. Only places that can be *written* are
tapped, i.e. where replacing the tensor changes what comes after:

    hook_embed                    patches + positions (convolutional nets: the stem's output)
    blocks.L.hook_resid_pre       what enters block L        [batch, pos, d] or [batch, d, row, col]
    blocks.L.attn.hook_q ...      see `mmlens.towers.attention`
    blocks.L.hook_attn_out        what attention adds to the residual stream (after layer scale)
    blocks.L.mlp.hook_pre, _post  neurons before and after their nonlinearity; W_out reads hook_post
    blocks.L.hook_mlp_out         what the MLP adds to the residual stream (after layer scale)
    blocks.L.hook_resid_post      what leaves block L

`hook_resid_mid` isn't among them: between attention and MLP the residual stream is a local variable
in every library, so nothing could be written there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmlens.towers.attention import (
    ATTENTION_POINTS,
    OpenAttention,
    open_attention,
    warm,
)

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


LAYOUTS: dict[str, Layout] = {
    "hf": Layout(
        embed=(("embeddings", "out"), ("embedder", "out")),
        blocks=("layers", "encoder.layers", "encoder.layer", "model.layer", "layer"),
        attn=("attention", "self_attn", "attn"),
        mlp_in=("mlp.fc1", "mlp.gate_proj", "mlp.up_proj", "intermediate.dense"),
        mlp_out=("mlp.fc2", "mlp.down_proj", "output.dense"),
        attn_adds=("layer_scale1", "attention", "self_attn"),
        mlp_adds=("layer_scale2", "mlp"),
    ),
    "open_clip": Layout(
        embed=(("ln_pre", "in"), ("avgpool", "out")),
        blocks=("transformer.resblocks", "layer1+layer2+layer3+layer4"),
        attn=("attn",),
        mlp_in=("mlp.c_fc",),
        mlp_out=("mlp.c_proj",),
        attn_adds=("ls_1",),
        mlp_adds=("ls_2",),
    ),
    "timm": Layout(
        embed=(("norm_pre", "in"), ("pos_drop", "out"), ("maxpool", "out"), ("stem", "out")),
        blocks=("blocks", "layer1+layer2+layer3+layer4", "stages"),
        attn=("attn",),
        mlp_in=("mlp.fc1", "mlp.fc1_g"),
        mlp_out=("mlp.fc2",),
        attn_adds=("drop_path1",),
        mlp_adds=("drop_path2",),
    ),
}


class Reached(Exception):
    """Carries the features out of an encoder that needn't run any further."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


class OutTap:
    """Forward hook: a module's output (or its first item) goes through the point.

    Where `ends` is set the forward pass ends here, with `Reached`.
    """

    def __init__(self, point: HookPoint, ends: bool = False) -> None:
        self.point, self.ends = point, ends

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        key = next(iter(output)) if isinstance(output, dict) else 0  # a ModelOutput is a dict
        value = output[key] if isinstance(output, (dict, tuple)) else output
        if not isinstance(value, Tensor):
            return None
        if self.ends:
            raise Reached(self.point(value))
        if not warm(self.point):
            return None
        value = self.point(value)
        if isinstance(output, dict):
            output[key] = value
            return output
        return (value, *output[1:]) if isinstance(output, tuple) else value


class InTap:
    """Forward pre-hook (with kwargs): a module's first input goes through the point.

    Where `ends` is set the forward pass ends here, with `Reached`.
    """

    def __init__(self, point: HookPoint, ends: bool = False) -> None:
        self.point, self.ends = point, ends

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        value = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(value, Tensor):
            return None
        if self.ends:
            raise Reached(self.point(value))
        if not warm(self.point):
            return None
        if args:
            return (self.point(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: self.point(kwargs[first])}


class TurnTap:
    """For one module that a block calls twice, attention first, MLP second (BEiT's drop_path).

    BEiT scales what a block adds by bare parameters, so no module of its own ends in that tensor;
    the stochastic depth module behind it, an identity in eval mode, does.
    """

    def __init__(self, attn: HookPoint, mlp: HookPoint) -> None:
        self.points = (attn, mlp)
        self.turn = 0

    def start(self, module: nn.Module, args: Any) -> None:
        self.turn = 0

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        point = self.points[self.turn % 2]
        self.turn += 1
        return point(output) if warm(point) else None


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
                inner = getattr(child, "blocks", None)
                out += list(inner.children()) if isinstance(inner, nn.Module) else [child]
        return out
    return []


def attach(
    root: nn.Module, kind: str, last: str = ""
) -> tuple[dict[str, HookPoint], list[nn.Module]]:
    """Taps every place the module has; returns the points in running order, and the blocks.

    Args:
        last: the point whose value the encoder hands over; forward passes end there.
    """
    from transformer_lens.hook_points import HookPoint

    layout, points = LAYOUTS[kind], {}

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
    yield OutTap, block, "hook_resid_post", False


def _attach_attention(block: nn.Module, layout: Layout, prefix: str, point: Any) -> None:
    module = find(block, layout.attn)
    if module is not None:
        open_attention(module, {name: point(prefix + name) for name in ATTENTION_POINTS})


def untap(root: nn.Module) -> nn.Module:
    """Removes the taps that a module brings along from an earlier wrapping."""
    for module in root.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", hook), OutTap | InTap | TurnTap):
                    del hooks[key]
        if isinstance(vars(module).get("forward"), OpenAttention):
            del module.forward
    return root


_ORDER = (
    "hook_embed",
    "hook_resid_pre",
    *(f"attn.{name}" for name in ATTENTION_POINTS),
    "hook_attn_out",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1
