"""Perceiver IO with its class decoder: latents that read a picture once and then each other.

    latents  = z + attention(z, pixels), + MLP        block 0; every position of the input is a key
    latents += attention(latents), + MLP              blocks 1 ..; a stack that is run several times
    logits   = decoder(class query, latents)

(Jaegle et al. 2021, Perceiver IO, section 3.) Positions of the residual stream are latents,
`Marker("latent", n)`, which lie nowhere in the picture; the keys of block 0 are the places of the
input, in a grid that is that of the pixels or of the convolution before them. Blocks that share
their weights are layers of their own, because their activations are. The decoder's own attention
and MLP have no hook points.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.towers.tower import Placed
from mmlens.towers.vision import class_head
from mmlens.towers.vision.calls import LAST
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.painting import ramp
from mmlens.towers.vision.pixels import Pixels
from mmlens.towers.vision.tap_hooks import looking
from mmlens.values.errors import CapabilityError, reason
from mmlens.values.labels import Label, Marker, Patch
from mmlens.values.sites import Site

LATENT = "latent"
_HEADS, _PAIRS = ("head", "dim"), ("head", "query", "key")
_ATTENTION = {
    "hook_q": ("pos", *_HEADS), "hook_k": ("pos", *_HEADS), "hook_v": ("pos", *_HEADS),
    "hook_attn_scores": _PAIRS, "hook_pattern": _PAIRS, "hook_z": ("pos", *_HEADS),
}  # fmt: skip
_STREAM = {
    "hook_resid_pre": ("pos", "dim"), "hook_attn_out": ("pos", "dim"),
    "hook_resid_mid": ("pos", "dim"), "mlp.hook_pre": ("pos", "unit"),
    "mlp.hook_post": ("pos", "unit"), "hook_mlp_out": ("pos", "dim"),
    "hook_resid_post": ("pos", "dim"),
}  # fmt: skip


class HookedLatents(HookedVision):
    """A `HookedVision` whose positions are latents.

    Args:
        module: a PerceiverForImageClassification... of transformers; a storage-sharing copy of it
            becomes `.module`.
        pixels: its preprocessing recipe.

    Attributes:
        input_grid: (rows, cols) of the places of the input, which are the keys of block 0.
        n_latents: how many latents there are.

    Raises:
        CapabilityError: it classifies no pictures, or gives other logits than its own class.
    """

    def __init__(self, module: Any, pixels: Pixels) -> None:
        Placed.__init__(self)
        torch.nn.Module.__init__(self)
        _check_class(module)
        self.module = class_head.untapped(module)
        self.kind, self.pixels, self.pooled, self.arch = "hf", pixels, False, None
        self.whole, self.feature_layer, self.keep_prefix = None, LAST, False
        self.n_prefix, self.markers, self.grids, self._unlabelled = 0, (), {}, {}
        inside = self.module.perceiver
        repeated = [*inside.encoder.self_attends] * int(inside.config.num_blocks)
        self._blocks = [inside.encoder.cross_attention, *repeated]
        self.n_latents, self.d_vision = (int(n) for n in inside.embeddings.latents.shape)
        self._points()
        with torch.no_grad():
            self._compare()

    @property
    def grid(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """None.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            f"The positions of {type(self.module).__name__} are latents, which lie nowhere in a"
            " picture and are no patches for a language model: ask it alone, at 'pixels' or at"
            " 'vision.cross_pattern' for places."
        )

    @property
    def classifier(self) -> Any:
        """Itself."""
        return self.module

    def site(self, site: Site, layer: int | None = None) -> Site:
        return site.holding(self.axes.get(site.at(layer).removeprefix("vision."), site.axes))

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> tuple[Label, ...]:
        """The latents of one picture; at the pixels, the places of the input."""
        if site.name == "pixels":
            return self.key_labels(image)
        return tuple(Marker(LATENT, at, image, crop) for at in range(self.n_latents))

    def key_labels(self, image: int = 0) -> tuple[Label, ...]:
        """The keys of block 0: the places of the input, in reading order."""
        rows, cols = self.input_grid
        return tuple(Patch(row, col, image) for row in range(rows) for col in range(cols))

    def box(
        self, row: int, col: int, width: int, height: int, grid: tuple[int, int] | None = None
    ) -> tuple[float, float, float, float]:
        return super().box(row, col, width, height, grid or self.input_grid)

    def classify(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch class"]:
        """Class logits."""
        self._check_pixels(pixels)
        return self._decoded(self._read(pixels), pixels)

    def at(self, feature_layer: str) -> HookedLatents:
        if feature_layer != LAST:
            raise CapabilityError(
                f"{type(self.module).__name__} is read as a whole here: leave feature_layer= out,"
                " and ask at its sites."
            )
        return HookedLatents(self.module, self.pixels)

    def __reduce__(self) -> Any:
        return HookedLatents, (class_head.untapped(self.module), self.pixels)

    # -- running ------------------------------------------------------------------------------

    def _tokens(self, x: Float[Tensor, "batch 3 h w"]) -> Tensor:
        """Latents [batch, latent, d]."""
        inside = self.module.perceiver
        inputs = self._inputs(x)[0]
        stream = inside.embeddings(batch_size=len(x))
        for at, block in enumerate(self._blocks):
            stream = self._block(at, block, stream, inputs if at == 0 else None)
        return stream

    def _inputs(self, x: Tensor) -> tuple[Any, ...]:
        """The input with its positions [batch, place, d], and the same without them."""
        found = self.module.perceiver.input_preprocessor(x)
        return self.hook_dict["hook_embed"](found[0]), found[2]

    def _block(self, at: int, block: Any, stream: Tensor, inputs: Tensor | None) -> Tensor:
        def point(name: str, value: Tensor) -> Tensor:
            return self.hook_dict[f"blocks.{at}.{name}"](value)

        stream = point("hook_resid_pre", stream)
        own, kind = block.attention.self, "attn" if inputs is None else "cross_attn"
        x = own.layernorm1(stream)
        read = x if inputs is None else own.layernorm2(inputs)
        q, k, v = (
            point(f"{kind}.hook_{name}", layer(of).unflatten(-1, (own.num_heads, -1)))
            for name, layer, of in (
                ("q", own.query, x),
                ("k", own.key, read),
                ("v", own.value, read),
            )
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        pattern = point(f"{kind}.hook_attn_scores", scores).softmax(-1)
        pattern = point(f"{kind}.hook_pattern", pattern)
        z = point(f"{kind}.hook_z", torch.einsum("bhqk,bkhd->bqhd", pattern, v))
        written = "hook_attn_out" if inputs is None else "hook_cross_attn_out"
        out = point(written, block.attention.output(z.flatten(2)))
        stream = point(
            "hook_resid_mid", stream + out if block.attention.use_query_residual else out
        )
        units = point("mlp.hook_pre", block.mlp.dense1(block.layernorm(stream)))
        units = point("mlp.hook_post", block.mlp.intermediate_act_fn(units))
        stream = stream + point("hook_mlp_out", block.mlp.dense2(units))
        return point("hook_resid_post", stream)

    def _decoded(self, latents: Tensor, pixels: Tensor) -> Tensor:
        """Class logits by the class's own decoder, whose query says nothing of the picture."""
        inside = self.module.perceiver
        raw = inside.input_preprocessor(pixels.to(self.device, self.dtype))
        query = inside.decoder.decoder_query(raw[0], raw[1], raw[2])
        return inside.decoder(query, z=latents).logits

    # -- measured -----------------------------------------------------------------------------

    def _points(self) -> None:
        """One hook point for each tensor, and its axes."""
        from transformer_lens.hook_points import HookPoint

        axes: dict[str, tuple[str, ...]] = {"hook_pixels": ("channel", "y", "x")}
        axes["hook_embed"] = ("key", "dim")
        for at in range(len(self._blocks)):
            cross = at == 0
            for name, those in _STREAM.items():
                own = name.replace("hook_attn", "hook_cross_attn") if cross else name
                axes[f"blocks.{at}.{own}"] = those
            for name, those in _ATTENTION.items():
                keyed = cross and name in ("hook_k", "hook_v")
                kind = "cross_attn" if cross else "attn"
                axes[f"blocks.{at}.{kind}.{name}"] = ("key", *_HEADS) if keyed else those
        axes["hook_features"] = ("pos", "dim")
        self.axes = axes
        self.hook_dict = {}
        for name in axes:
            self.hook_dict[name] = HookPoint()
            self.hook_dict[name].name = name

    def _compare(self) -> None:
        """Compare the logits with the class's own, and see which points fire, in their order."""
        name, picture = type(self.module).__name__, ramp(self)
        order: dict[str, tuple[int, ...]] = {}

        def look(tensor: Tensor, hook: Any) -> None:
            order[hook.name] = tuple(tensor.shape)

        try:
            plain = self.module(pixel_values=picture).logits
            with looking(self.hook_dict.values(), look):
                ours = self.classify(picture)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise CapabilityError(f"{name} can't be run on pixels: {reason(error)}") from error
        near = 1e-5 if self.dtype in (torch.float32, torch.float64) else 5e-2
        if ours.shape != plain.shape or not (ours - plain).abs().max() <= near * (
            1 + plain.abs().max()
        ):
            raise CapabilityError(
                f"{name} gives other logits when hooks are set, so nothing measured would hold."
            )
        self.hook_dict = {one: self.hook_dict[one] for one in order}
        self.class_points = tuple(order)
        self.class_names = class_head.names_of(self.module)
        n, (rows, cols) = order["hook_embed"][1], self.image_size
        self.input_grid = (math.isqrt(n), math.isqrt(n))
        if rows != cols or self.input_grid[0] ** 2 != n:
            raise CapabilityError(f"{name} reads {n} places, which are no square of its pixels.")


def _check_class(module: Any) -> None:
    """Refuse Perceivers that read something else, or answer with something else.

    Raises:
        CapabilityError: it is one of them.
    """
    if not hasattr(module, "perceiver") or "ImageClassification" not in type(module).__name__:
        raise CapabilityError(
            f"A {type(module).__name__} has no classes of pictures to answer with, and its latents"
            " are no patches: give a PerceiverForImageClassificationLearned, ...Fourier or"
            " ...ConvProcessing."
        )
