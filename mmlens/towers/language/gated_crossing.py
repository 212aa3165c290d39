"""Cross-attention layers with gates, whose keys are patches of tiles (Mllama, Llama 3.2 Vision).

    stream = stream + tanh(g_attn) * attention(stream, keys);  stream + tanh(g_mlp) * mlp(stream)

(Grattafiori et al. 2024, The Llama 3 Herd of Models, section 7.) A layer has this in place of
self-attention. A position attends to the pictures whose image token it follows, up to the next one;
in transformers' class one before the first image token attends to all keys, and its MLP writes
nothing. Keys are computed in every step, also under a cache, so that an edit of them stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmlens.runtime.run import current
from mmlens.towers.attention import warm
from mmlens.towers.language.crossing import Crossing
from mmlens.towers.language.interleaved import InterleavedCrossing
from mmlens.values.labels import Label, Marker, Patch
from mmlens.values.prompt import PictureKeys, SoftPrompt

_NO_END = 1 << 40
EMPTY = "empty"
"""The name of the keys of a tile that a picture does not fill."""


class GatedCrossing(Crossing):
    """The cross-attention of Mllama.

    Attributes:
        image_token: the id that stands where a picture is read.
    """

    states, mask = "cross_attention_states", "cross_attention_mask"
    masked = False  # positions before the first image token attend to everything

    def __init__(self, d_key: int) -> None:
        super().__init__(d_key)
        self.image_token: int | None = None
        self._gates: dict[int, Tensor] = {}

    def open_block(self, layer: int, block: Any) -> None:
        """Keep the keys of a block out of the cache, and note its gates."""
        self._gates[layer] = block.cross_attn_attn_gate
        self.gates[layer] = {
            "attention": float(block.cross_attn_attn_gate.detach().float().tanh()),
            "mlp": float(block.cross_attn_mlp_gate.detach().float().tanh()),
        }
        block.cross_attn.register_forward_pre_hook(_uncached, with_kwargs=True)

    def given(self, module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        if self.image_token is None:
            self.image_token = getattr(module.config, "image_token_id", None)
        run, like = current(), next(module.parameters())
        read = next(x for x in (*args, *options.values()) if isinstance(x, Tensor))
        if run is None and self.measuring and options.get(self.states) is None:
            return args, options | self.something(len(read), like)
        if run is not None and run.soft.picture_keys is None:
            return args, options | self._nothing(len(read), read.shape[1], like)
        return super().given(module, args, options)

    def _nothing(self, rows: int, width: int, like: Tensor) -> dict[str, Tensor]:
        """A key of zeros that no position follows, for words alone: the layers write nothing.

        The class leaves them out, so that they would have no stream that could be read.
        """
        keys = torch.zeros(rows, 1, self.d_key, device=like.device, dtype=like.dtype)
        return {self.states: keys, self.mask: keys.new_zeros(rows, width, 1, 1)}

    def something(self, rows: int, like: Tensor) -> dict[str, Tensor]:
        found = super().something(rows, like)
        return {self.states: found[self.states]}

    def arguments(self, keys: PictureKeys, start: int, width: int = 0) -> dict[str, Tensor]:
        found = {self.states: keys.vectors}
        run = current()
        spans = None if run is None else self._spans(run.soft)
        if spans is None:
            return found
        at = torch.arange(start, start + width)
        rows = []
        for span, labels in zip(spans, keys.labels, strict=True):
            image = [_image(one) for one in labels]
            ends = torch.tensor([span.get(one, (0, 0)) for one in image])  # [key, 2]
            rows.append((at[:, None] >= ends[:, 0]) & (at[:, None] < ends[:, 1]))
        seen = torch.stack(rows)[:, :, None].to(keys.vectors)  # [batch, pos, 1, key]
        return found | {self.mask: seen}

    def _spans(self, soft: SoftPrompt) -> list[dict[int, tuple[int, int]]] | None:
        """Per prompt and picture the positions that attend to it; None where none is named."""
        found = []
        for row in soft.ids.tolist():
            places = [at for at, token in enumerate(row) if token == self.image_token]
            ends = [*places[1:], _NO_END][: len(places)]
            for at in range(len(places) - 2, -1, -1):
                if places[at] + 1 == ends[at]:  # pictures one after the other are read together
                    ends[at] = ends[at + 1]
            found.append(dict(enumerate(zip(places, ends, strict=True))))
        return found if any(found) else None

    def written(self, layer: int, point: Any, module: nn.Module, args: Any, out: Any) -> Any:
        """What is written is gated: the point sees tanh(gate) times the module's output."""
        gate = self._gates[layer].tanh()
        if not warm(point) or float(gate.detach()) == 0.0:
            return None
        gated = gate * out[0]
        return (out[0] + (point(gated) - gated) / gate, *out[1:])


def _image(label: Label) -> int:
    """Which picture a key belongs to; -1 for padding and empty tiles, which are masked."""
    if isinstance(label, Patch):
        return label.image
    return label.image if isinstance(label, Marker) and label.name != EMPTY else -1


def _uncached(module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
    """The pre-hook of a module: keys that it is given are not kept in the cache."""
    given = options.get(GatedCrossing.states) is not None
    return args, {**options, "cache": None} if given else options


KINDS = (Crossing, GatedCrossing, InterleavedCrossing)
"""The kinds of cross-attention that are opened."""
