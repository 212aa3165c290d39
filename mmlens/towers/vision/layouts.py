"""Where the blocks of an encoder are, and the parts inside of a block: a table per library.

The table only proposes places. What is at them is measured when an encoder is wrapped
(`vision.measure`): a point that does not fire, fires twice, or is not what its name says is left
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from mmlens.towers.vision.block_acts import is_activation


@dataclass(frozen=True)
class Layout:
    """Candidate paths of one library, first hit wins; `attn_adds` and so on are inside a block.

    Attributes:
        blocks: containers of blocks or of stages of blocks; "a+b" joins several.
        whole: modules that are blocks themselves, where `blocks` finds none.
        mlp_acts: the nonlinearity of an MLP, whose input is `mlp.hook_pre` where other modules or
            a second half (packed gates) stand between it and the first matrix.
        last_act: the nonlinearity after the residual sum, if any.
        tail: modules that make the features from what leaves the blocks, in the order they run;
            together they are one more block.
    """

    embed: tuple[tuple[str, str], ...]
    blocks: tuple[str, ...]
    whole: tuple[str, ...] = ()
    attn: tuple[str, ...] = ()
    mlp_in: tuple[str, ...] = ()
    mlp_acts: tuple[str, ...] = ("mlp.act",)
    mlp_out: tuple[str, ...] = ()
    attn_adds: tuple[str, ...] = ()
    mlp_adds: tuple[str, ...] = ()
    last_act: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


class Tail(nn.Sequential):
    """The tail of an encoder as a block: its modules, which the encoder itself runs."""


_INCEPTION = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")

LAYOUTS: dict[str, Layout] = {
    "hf": Layout(
        embed=(("embeddings", "out"), ("embedder", "out"), ("ln_pre", "out")),
        blocks=(
            *("layers", "encoder.layers", "encoder.layer", "model.layer", "layer"),
            *("encoder.stages", "model.layers", "transformer.layers", "backbone.blocks"),
            *("stages", "model.stages", "encoder.block", "encoder.blocks", "blocks"),
        ),
        attn=("attention", "self_attn", "attn"),
        mlp_in=(
            *("mlp.fc1", "mlp.gate_proj", "mlp.up_proj", "intermediate.dense", "mlp.lin1"),
            *("ffn.gate_proj", "feed_forward.gate_proj", "mlp.proj_in", "mlp.dense1"),
            *("mlp.linear_fc1", "pwconv1", "pointwise_conv1"),
        ),
        mlp_acts=(
            *("mlp.activation_fn", "mlp.intermediate_act_fn"),
            *("act", "activation_fn"),  # of ConvNeXt, whose MLP is no module
        ),
        mlp_out=(
            *("mlp.fc2", "mlp.down_proj", "output.dense", "mlp.lin2"),
            *("ffn.down_proj", "feed_forward.down_proj", "mlp.proj_out", "mlp.dense2"),
            *("mlp.linear_fc2", "pwconv2", "pointwise_conv2"),
        ),
        attn_adds=("layer_scale1", "attention", "self_attn", "attn"),
        mlp_adds=("layer_scale2", "mlp", "ffn", "feed_forward", "output.dropout", "drop_path"),
        last_act=("activation",),
        tail=("encoder.top_conv", "encoder.top_bn", "encoder.top_activation"),  # of EfficientNet
    ),
    "open_clip": Layout(
        embed=(("ln_pre", "in"), ("avgpool", "out")),
        blocks=("transformer.resblocks", "layer1+layer2+layer3+layer4"),
        attn=("attn",),
        mlp_in=("mlp.c_fc",),
        mlp_out=("mlp.c_proj",),
        attn_adds=("ls_1",),
        mlp_adds=("ls_2",),
        last_act=("act3",),
    ),
    "timm": Layout(
        embed=(("stem", "out"), ("norm_pre", "in"), ("pos_drop", "out"), ("maxpool", "out")),
        blocks=(
            "blocks",
            "layer1+layer2+layer3+layer4",
            "stages",
            "layers",
            "s1+s2+s3+s4",
            "network.0+network.2+network.3+network.4",
        ),
        whole=(
            "+".join(f"features.denseblock{number}" for number in range(1, 5)),
            "+".join(f"Mixed_{name}" for name in _INCEPTION),
        ),
        attn=("attn",),
        mlp_in=("mlp.fc1", "mlp.fc1_g", "mlp.w0", "mlp_channels.fc1"),
        mlp_out=("mlp.fc2", "mlp.w2", "mlp_channels.fc2"),
        attn_adds=("layer_scale1", "drop_path1"),
        mlp_adds=("layer_scale2", "drop_path2", "drop_path"),
        last_act=("act3", "act2"),
        tail=("conv_head", "bn2"),  # of EfficientNet, whose widest units are there
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
    """The blocks in the order they run; stages of blocks are flattened.

    A plain pile of convolutions (VGG) has none: there, each nonlinearity is a block.
    """
    if stages := _first(root, layout.blocks):
        inner = [block for stage in stages for child in stage.children() for block in _of(child)]
        return [*inner, *_tail(root, layout)]
    if blocks := _first(root, layout.whole):
        return blocks
    pile = find(root, ("features",))
    return [m for m in pile.children() if is_activation(m)] if pile is not None else []


def _tail(root: nn.Module, layout: Layout) -> list[nn.Module]:
    parts = [part for path in layout.tail if (part := find(root, (path,))) is not None]
    return [Tail(*parts)] if parts and len(parts) == len(layout.tail) else []


def _first(root: nn.Module, paths: tuple[str, ...]) -> list[nn.Module]:
    """The modules of the first path that is there completely."""
    for path in paths:
        parts = path.split("+")
        found = [part for name in parts if (part := find(root, (name,))) is not None]
        if len(found) == len(parts):
            return found
    return []


def _of(child: nn.Module) -> list[nn.Module]:
    """The blocks of a stage, or the block itself."""
    inner = getattr(child, "blocks", getattr(child, "layers", None))
    if isinstance(child, nn.ModuleList):
        inner = child
    return list(inner.children()) if isinstance(inner, nn.Module) else [child]
