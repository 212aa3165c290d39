"""Gated layers between those of a language model, which read pictures (Flamingo, IDEFICS).

    stream = stream + tanh(g_attn) * attention(stream, keys);  stream + tanh(g_mlp) * mlp(stream)

(Alayrac et al. 2022, Flamingo, arXiv 2204.14198, section 2.2.) The class of transformers keeps them
in a list of their own, and runs one before every n-th layer. Here they stand in the list of layers
where they run, so that each is a layer as others are, with a stream before and behind it and MLP
units. A position attends to the last picture before it; one that follows none reads nothing, and
the MLP runs all the same, also in a prompt of words alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mmlens.runtime.run import current
from mmlens.towers.language.crossing import Crossing
from mmlens.values.labels import Label, Marker, Patch
from mmlens.values.prompt import PictureKeys, SoftPrompt


class Handing(nn.Module):
    """Stands where the class calls its gated layers, and keeps what they are given.

    Attributes:
        states, mask, reads: keys [batch, key, d], their additive mask [batch, 1, pos, key], and
            0/1 [batch, pos], whether a position attends to any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.states: Tensor | None = None
        self.mask: Tensor | None = None
        self.reads: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Handing:
        memo[id(self)] = new = Handing()  # what it was given may have a graph
        return new

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        image_hidden_states: Tensor,
        *,
        image_attention_mask: Tensor,
        cross_attention_gate: Tensor,
        **options: Any,
    ) -> Tensor:
        """The stream as it is."""
        self.states, self.mask, self.reads = (
            image_hidden_states,
            image_attention_mask,
            cross_attention_gate,
        )
        return hidden_states


class ReadingLayer(nn.Module):
    """One gated layer in the list of layers, over the class's own modules.

    Args:
        theirs: the class's layer.
        handed: what it is given beside the stream; of all of them.
    """

    def __init__(self, theirs: Any, handed: Handing) -> None:
        super().__init__()
        self.input_layernorm, self.cross_attn = theirs.input_layernorm, theirs.cross_attn
        self.post_attention_layernorm, self.mlp = theirs.post_attention_layernorm, theirs.mlp
        self.alpha_cross_attn, self.alpha_dense = theirs.alpha_cross_attn, theirs.alpha_dense
        self.wrote = nn.Identity()  # what is added to the stream has a hook point
        vars(self)["handed"] = handed  # no child: it is the model's

    def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        """The stream behind the layer, Float[batch, pos, d_model]."""
        given: Handing = vars(self)["handed"]
        assert given.reads is not None  # the model has called it
        read, _ = self.cross_attn(
            hidden_states=self.input_layernorm(hidden_states),
            key_value_states=given.states,
            attention_mask=given.mask,
        )
        read = read.masked_fill((given.reads == 0)[:, :, None], 0.0)
        stream = hidden_states + self.wrote(self.alpha_cross_attn.tanh() * read)
        wrote = self.mlp(self.post_attention_layernorm(stream))
        return stream + self.alpha_dense.tanh() * wrote


def interleaved(model: Any, image_token: int, ends: int | None) -> Any:
    """A copy of an eyeless model, over the same weights, whose gated layers are layers.

    Its configuration counts them: 32 layers of which every fourth has a gated one before it are 40.

    Args:
        image_token, ends: the ids of a picture and of the end of a text.
    """
    out, inner = copy.copy(model), copy.copy(model.model)
    every, handed = inner.cross_layer_interval, Handing()
    layers: list[nn.Module] = []
    for at, layer in enumerate(inner.layers):
        if at % every == 0:
            layers.append(ReadingLayer(inner.gated_cross_attn_layers[at // every], handed))
        layers.append(layer)
    inner._modules = {
        **inner._modules,
        "layers": nn.ModuleList(layers),
        "gated_cross_attn_layers": nn.ModuleList([handed]),
    }
    inner.cross_layer_interval = len(layers) + 1  # so that `handed` is called once
    out._modules = {**out._modules, "model": inner}
    out.config = copy.deepcopy(model.config)
    out.config.num_hidden_layers = len(layers)
    out.config.image_token_id, out.config.text_ends = image_token, ends
    return out


class InterleavedCrossing(Crossing):
    """The cross-attention of IDEFICS.

    Attributes:
        image_token, ends: the ids of a picture, and of the end of a text, behind which a position
            reads no picture.
    """

    states, mask, reads = "perceiver_embeddings", "image_attention_mask", "key_value_states"

    def __init__(self, d_key: int) -> None:
        super().__init__(d_key)
        self.image_token: int | None = None
        self.ends: int | None = None

    @classmethod
    def size(cls, config: Any) -> int | None:
        return int(config.vision_config.embed_dim)

    def open_block(self, layer: int, block: Any) -> None:
        """Note the gates of a block: numbers, or vectors Float[d_model]."""
        gates = {"attention": block.alpha_cross_attn, "mlp": block.alpha_dense}
        found = {name: gate.detach().float().tanh().flatten() for name, gate in gates.items()}
        self.gates[layer] = {n: float(x) if x.numel() == 1 else x for n, x in found.items()}

    def writer(self, block: Any, module: nn.Module) -> nn.Module:
        return block.wrote

    def given(self, module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        """The class takes keys always, and one key for all pictures where its mask has a place."""
        self.image_token, self.ends = module.config.image_token_id, module.config.text_ends  # type: ignore[union-attr]
        passed = super().given(module, args, options)
        args, options = passed if passed is not None else (args, options)
        options = dict(options)
        for other in ("pixel_values", "image_encoder_embeddings"):  # kept from its last step
            options.pop(other, None)
        if options.get(self.states) is None:
            read = next(x for x in (*args, *options.values()) if isinstance(x, Tensor))
            options |= self._nothing(len(read), next(module.parameters()))
        states, mask = options[self.states], options[self.mask]
        if mask.shape[-1] == states.shape[1]:  # a place for each key: each is a picture to it
            options[self.states] = states.flatten(0, 1)[:, None]
        return args, options

    def something(self, rows: int, like: Tensor) -> dict[str, Tensor]:
        found = super().something(rows, like)
        return found | {self.mask: found[self.mask][..., :1]}

    def _nothing(self, rows: int, like: Tensor) -> dict[str, Tensor]:
        """A key that no position attends to."""
        keys = torch.zeros(rows, 1, self.d_key, device=like.device, dtype=like.dtype)
        return {self.states: keys, self.mask: torch.zeros_like(keys[..., :1], dtype=torch.long)}

    def arguments(self, keys: PictureKeys, start: int, width: int = 0) -> dict[str, Tensor]:
        seen, run = keys.mask[:, None], current()
        if run is not None and self.image_token is not None:
            seen = seen & self._seen(run.soft, keys, start, width)
        return {self.states: keys.vectors, self.mask: seen.long()}

    def _seen(self, soft: SoftPrompt, keys: PictureKeys, start: int, width: int) -> Tensor:
        """Whether positions attend to keys: Bool[batch, pos, key]; later ones as the last."""
        rows = []
        for ids, labels in zip(soft.ids.tolist(), keys.labels, strict=True):
            last, count, ended = [], -1, False
            for token in ids:
                count, ended = (count + 1, False) if token == self.image_token else (count, ended)
                last.append(-1 if ended else count)
                ended = ended or token == self.ends
            at = [last[min(place, len(last) - 1)] for place in range(start, start + width)]
            image = torch.tensor([_image(one) for one in labels])
            rows.append(torch.tensor(at)[:, None] == image)
        if not any(self.image_token in ids for ids in soft.ids.tolist()):
            return torch.ones_like(rows[0])[None]  # no picture is named: a measurement
        return torch.stack(rows).to(keys.mask.device)


def _image(label: Label) -> int:
    """Which picture a key belongs to; -2 for padding."""
    return label.image if isinstance(label, Marker | Patch) else -2
