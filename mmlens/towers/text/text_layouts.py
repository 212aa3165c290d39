"""Where TransformerLens' hook points are inside a text encoder, per library.

The blocks are those of the image encoders of the same library (`mmlens.towers.vision.taps`), except
for BERT and its relatives: they normalise *after* adding, so no module outputs what attention or
the MLP adds to the residual stream, and `hook_attn_out` and `hook_mlp_out` do not exist.
"""

from __future__ import annotations

from torch import nn

from mmlens.towers.vision.taps import Layout, find, find_blocks

LAYOUTS = (
    Layout(  # open_clip's CLIP and TextTransformer
        embed=(("transformer", "in"),),
        blocks=("transformer.resblocks",),
        attn=("attn",),
        mlp_in=("mlp.c_fc",),
        mlp_out=("mlp.c_proj",),
        attn_adds=("ls_1",),
        mlp_adds=("ls_2",),
    ),
    Layout(  # CLIP, SigLIP and MetaCLIP 2 of transformers
        embed=(("embeddings", "out"),),
        blocks=("encoder.layers",),
        attn=("self_attn",),
        mlp_in=("mlp.fc1",),
        mlp_out=("mlp.fc2",),
        attn_adds=("self_attn",),
        mlp_adds=("mlp",),
    ),
    Layout(  # BERT, RoBERTa
        embed=(("embeddings", "out"),),
        blocks=("encoder.layer", "encoder.layers"),
        attn=("attention",),
        mlp_in=("intermediate.dense",),
        mlp_out=("output.dense",),
    ),
)
BEFORE_ADDING = Layout(  # FLAVA: BERT's names, but it normalises before it adds
    embed=(("embeddings", "out"),),
    blocks=("encoder.layer",),
    attn=("attention",),
    mlp_in=("intermediate.dense",),
    mlp_out=("output.dense",),
    attn_adds=("attention",),
    mlp_adds=("output.dropout",),
)


def located(half: nn.Module) -> tuple[nn.Module, Layout] | None:
    """The outermost module in which one of the layouts finds blocks and their MLP, and it."""
    for module in half.modules():
        for layout in LAYOUTS:
            blocks = find_blocks(module, layout)
            if blocks and find(blocks[0], layout.mlp_in) is not None:
                before = hasattr(blocks[0], "layernorm_before")
                return module, BEFORE_ADDING if before else layout
    return None
