"""Both text decoders of CoCa as one causal language model of transformers, over the same weights.

    words   = E[token] + position
    blocks  0 .. n          self-attention, MLP           the unimodal decoder
    blocks  n + 2 k         self-attention, MLP           the multimodal decoder, whose layer k is
    blocks  n + 2 k + 1     cross-attention, MLP          two blocks of open_clip
    logits  = W_U norm(stream)

(Yu et al. 2022, CoCa: Contrastive Captioners are Image-Text Foundation Models, section 3.2.) One
residual stream runs through all of it. The layout is OPT's, whose forward pass, cache and masks
this is; weights are views of open_clip's, which keeps those of q, k and v in one matrix.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM
from transformers.activations import ACT2FN

from mmlens.values.errors import CapabilityError

_ACTS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}


class PictureAttention(nn.Module):
    """Attention of words to the keys of pictures."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Words [batch, pos, width] and keys [batch, key, width] to what is read of them."""
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, x in (
                (self.q_proj, hidden_states),
                (self.k_proj, encoder_hidden_states),
                (self.v_proj, encoder_hidden_states),
            )
        )
        there = encoder_attention_mask
        seen = None if there is None else there.bool()[:, None, None]  # [batch, 1, 1, key]
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out_proj(z.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """stream + attention to pictures, + MLP; without a picture only the MLP writes."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.hidden_size
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.key_norm = nn.LayerNorm(width)
        self.cross_attn = PictureAttention(width, config.num_attention_heads)
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.ffn_dim)
        self.activation_fn = ACT2FN[config.activation_function]
        self.fc2 = nn.Linear(config.ffn_dim, width)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        """The stream [batch, pos, width] behind the block."""
        if encoder_hidden_states is not None:
            read = self.cross_attn(
                self.self_attn_layer_norm(hidden_states),
                encoder_hidden_states=self.key_norm(encoder_hidden_states),
                encoder_attention_mask=encoder_attention_mask,
            )
            hidden_states = hidden_states + read
        flat = hidden_states.flatten(0, 1)  # as in OPT's blocks: TransformerLens unflattens there
        units = self.activation_fn(self.fc1(self.final_layer_norm(flat)))
        return hidden_states + self.fc2(units).view_as(hidden_states)


class CoCaWords(OPTForCausalLM):
    """The language model. Its keys are the vectors that the pooler makes of a picture."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        layers: Any = self.model.decoder.layers
        for at in config.crossing:
            layers[at] = CrossBlock(config)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Any:
        """Logits [batch, pos, token] and the cache, as OPT's.

        Args:
            encoder_hidden_states: Float[batch, key, width], the keys of pictures.
            encoder_attention_mask: Int[batch, key], 0 where there is no key.
        """
        run: Any = super().forward  # which hands on what it has no name for
        return run(
            input_ids=input_ids, attention_mask=attention_mask, cache=cache,
            inputs_embeds=inputs_embeds, use_cache=use_cache, logits_to_keep=logits_to_keep,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask, **more,
        )  # fmt: skip


def words_of(coca: Any) -> CoCaWords:
    """The text decoders of an open_clip CoCa as one language model that shares their weights.

    Raises:
        CapabilityError: parts that no released CoCa has, which this layout has no place for.
    """
    text, mixed = coca.text, coca.text_decoder
    plain = _blocks(text, mixed)
    first, pairs = len(text.transformer.resblocks), len(mixed.resblocks)
    block = plain[0]
    width, length = text.token_embedding.embedding_dim, len(text.positional_embedding) - 1
    layout: Any = OPTConfig  # which keeps what it has no name for
    config = layout(
        vocab_size=text.token_embedding.num_embeddings,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=block.mlp.c_fc.out_features,
        num_hidden_layers=first + 2 * pairs,
        num_attention_heads=block.attn.num_heads,
        activation_function=_ACTS[type(block.mlp.gelu).__name__],
        max_position_embeddings=min(length, int(mixed.context_length)),
        dropout=0.0,
        attention_dropout=0.0,
        tie_word_embeddings=False,
        attn_implementation="eager",  # whose masks are tensors: patterns are read and cut
        crossing=[first + 2 * at + 1 for at in range(pairs)],
    )
    with torch.device("meta"):
        words = CoCaWords(config)
    inside: Any = words.model.decoder
    _share(inside.embed_tokens, text.token_embedding.weight)
    table = text.positional_embedding[: config.max_position_embeddings]
    before = table.new_zeros(inside.embed_positions.offset, width)  # OPT's first rows are no places
    _share(inside.embed_positions, torch.cat([before, table]))
    _share(inside.final_layer_norm, mixed.ln_final.weight, mixed.ln_final.bias)
    _share(words.lm_head, mixed.text_projection.T)
    for layer, theirs in zip(inside.layers, plain, strict=True):
        _fill(layer, theirs)
    return words.eval()


def _blocks(text: Any, mixed: Any) -> list[Any]:
    """open_clip's blocks in the order in which they run.

    Raises:
        CapabilityError: some are built otherwise than those of released checkpoints.
    """
    if not hasattr(text, "transformer") or getattr(text, "cls_emb", None) is None:
        raise CapabilityError(
            "The words of this CoCa are read by an encoder without a [CLS] of its own"
            f" ({type(text).__name__}), so they reach its decoder changed: mmlens reads captions of"
            " CoCa with open_clip's own text encoder, such as 'open_clip:coca_ViT-L-14/...', and"
            " everything else as a dual encoder."
        )
    pairs = zip(mixed.resblocks, mixed.cross_attn, strict=True)
    found = [*text.transformer.resblocks, *(one for pair in pairs for one in pair)]
    shapes = {
        (b.attn.num_heads, b.attn.embed_dim, b.mlp.c_fc.out_features, type(b.mlp.gelu).__name__)
        if isinstance(getattr(b, "attn", None), nn.MultiheadAttention)
        else type(b).__name__
        for b in found
    }
    scaled = any(not isinstance(getattr(b, "ls_1", None), nn.Identity) for b in found)
    kind = next(iter(shapes))
    if len(shapes) > 1 or scaled or isinstance(kind, str) or kind[3] not in _ACTS:
        raise CapabilityError(
            f"The decoders of this CoCa have blocks of several kinds ({sorted(map(str, shapes))}"
            f"{', with layer scale' if scaled else ''}), and mmlens reads captions where all have"
            " one width and number of heads, as in 'open_clip:coca_ViT-L-14/...'."
        )
    return found


def _fill(layer: Any, theirs: Any) -> None:
    """Give a block the weights of one of open_clip's."""
    attention = getattr(layer, "self_attn", None) or layer.cross_attn
    parts = zip(
        ("q_proj", "k_proj", "v_proj"),
        theirs.attn.in_proj_weight.chunk(3),
        theirs.attn.in_proj_bias.chunk(3),
        strict=True,
    )
    for name, weight, bias in parts:
        _share(getattr(attention, name), weight, bias)
    named = [
        (attention.out_proj, theirs.attn.out_proj),
        (layer.self_attn_layer_norm, theirs.ln_1),
        (layer.final_layer_norm, theirs.ln_2),
        (layer.fc1, theirs.mlp.c_fc),
        (layer.fc2, theirs.mlp.c_proj),
    ]
    if isinstance(layer, CrossBlock):
        named.append((layer.key_norm, theirs.ln_1_kv))
    for ours, its in named:
        _share(ours, its.weight, its.bias)


def _share(module: Any, weight: Tensor, bias: Tensor | None = None) -> None:
    """Put tensors in place of a module's parameters, without copying them."""
    module.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach(), requires_grad=False)


def _register() -> None:
    """Tell TransformerLens how to hook it: as OPT, but some blocks have no self-attention."""
    from transformer_lens.factories.architecture_adapter_factory import (
        ArchitectureAdapterFactory as Factory,
    )

    every: Any = getattr(Factory, "_adapters", {})
    if CoCaWords.__name__ not in every:
        Factory.register_adapter(CoCaWords.__name__, _adapter(every["OPTForCausalLM"]))


def _adapter(base: Any) -> Any:
    class _Words(base):
        def __init__(self, cfg: Any) -> None:
            super().__init__(cfg)
            self.component_mapping["blocks"].submodules["attn"].optional = True

    return _Words


_register()  # also where a pickled model is read, which makes no new one
