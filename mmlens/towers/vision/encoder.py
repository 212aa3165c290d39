"""A frozen vision encoder whose insides have TransformerLens names.

`HookedVision` composes: it holds a copy of the encoder that shares the caller's weights (no bytes
are copied, the caller's module is never touched) and taps its tensors with TransformerLens
HookPoints (`vision_points`). Whatever the library, it takes pixels [batch, 3, h, w] and gives
features [batch, patch, d_vision]: row-major patches, prefix tokens (CLS, registers) dropped,
convolutional maps flattened "b d h w -> b (h w) d", or one mean vector when `pooled`.

    vision = wrap_vision(AutoModel.from_pretrained("google/vit-base-patch16-224"))
    features = vision(vision.preprocess(picture)[None])
    vision.hook_dict["blocks.3.mlp.hook_post"].add_hook(lambda value, hook: value * 0)

What it is, is measured at wrapping (`vision_measure`): points that don't fire are not in
`hook_dict`, attention that can't be opened exactly stays closed, and an encoder whose positions are
not its patches in reading order is refused.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.runtime.casting import Movable
from mmlens.runtime.sharing import share_weights
from mmlens.towers.vision import measure as measure
from mmlens.towers.vision.pixels import Pixels
from mmlens.towers.vision.taps import LAYOUTS, Reached, attach, find, untap
from mmlens.values.errors import AddressError, CapabilityError, PictureError, nearest

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


LAST = "last_hidden_state"
ENDS = ("hook_pixels", "hook_features")
_FEATURES = ("hook_embed", "hook_resid_pre", "hook_resid_post", "mlp.hook_pre", "mlp.hook_post")


class HookedVision(Movable):
    """One interface to the encoders of transformers, open_clip and timm.

    Args:
        module: the encoder; a storage-sharing, frozen copy of it in eval mode becomes `.module`.
        kind: the library whose conventions it follows: "hf", "open_clip" or "timm".
        pixels: its preprocessing recipe.
        n_prefix: tokens before the patches; None counts them.
        pooled: return the mean over the patches as one position (LiMBeR's NF-ResNet50).
        arch: how to build the module again without weights, where no config file says it.
        feature_layer: what the bridge reads: "last_hidden_state", or the hook point of one block,
            such as "blocks.22.hook_resid_post" (LLaVA's layer -2 of 24) or "blocks.5.mlp.hook_post"
            (its units). The forward pass ends there; hook points beyond don't exist.

    Raises:
        AddressError: a feature layer that the encoder doesn't have.
    """

    def __init__(
        self,
        module: nn.Module,
        kind: str,
        pixels: Pixels,
        *,
        n_prefix: int | None = None,
        pooled: bool = False,
        arch: dict[str, Any] | None = None,
        feature_layer: str = LAST,
    ) -> None:
        super().__init__()
        self.module: Any = untap(share_weights(module))
        if without_pooler(type(module)):
            self.module.pooler = None  # it comes after the patches; nothing here reads it
        if hasattr(getattr(self.module, "config", None), "mask_ratio"):
            self.module.config.mask_ratio = 0.0  # a masked autoencoder sees the whole picture here
        self.kind, self.pixels, self.pooled, self.arch = kind, pixels, pooled, arch
        self.n_prefix, self.feature_layer, self._asked_prefix = 0, feature_layer, n_prefix
        taps, blocks = attach(self.module, kind, feature_layer)
        _check_layer(feature_layer, list(taps), type(self.module).__name__)
        self._blocks: list[nn.Module] = blocks  # a plain list: they're part of `module` already
        self.hook_dict: dict[str, HookPoint] = _ends(taps)
        with torch.no_grad():
            self._measure(n_prefix)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def image_size(self) -> tuple[int, int]:
        """(rows, columns) of the pixels it takes."""
        return self.pixels.size

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def preprocess(self, picture: object) -> Float[Tensor, "3 h w"]:
        """A PIL picture as the encoder was trained to see it: deterministic, float32."""
        return self.pixels(picture)

    def box(self, row: int, col: int, width: int, height: int) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a patch in pixels of a picture of (width, height), crop included.

        For a convolutional net this is the patch's cell; its receptive field is larger.
        """
        if not (0 <= row < self.grid[0] and 0 <= col < self.grid[1]):
            raise AddressError(
                f"Patch ({row}, {col}) is outside the grid of {self.grid[0]} x {self.grid[1]}."
            )
        return self.pixels.box(row, col, self.grid, width, height)

    def forward(
        self, pixels: Float[Tensor, "batch 3 h w"]
    ) -> Float[Tensor, "batch patch d_vision"]:
        """Features of the patches, in reading order."""
        if pixels.shape[1:] != (3, *self.image_size):
            raise PictureError(
                f"Pixels of shape {tuple(pixels.shape)} are not [batch, 3, {self.image_size[0]},"
                f" {self.image_size[1]}], which this encoder's patches are labelled for."
            )
        return self._read(pixels)

    def _read(self, pixels: Float[Tensor, "batch 3 h w"]) -> Tensor:
        """Pixels to features, with the hooks of both."""
        pixels = self.hook_dict["hook_pixels"](pixels)
        tokens = self._tokens(pixels.to(self.device, self.dtype))[:, self.n_prefix :]
        if self.pooled:
            tokens = tokens.mean(dim=1, keepdim=True)
        return self.hook_dict["hook_features"](tokens)

    def _tokens(self, x: Float[Tensor, "batch 3 h w"]) -> Tensor:
        """The feature layer's values, prefix tokens included, maps flattened."""
        return self._flat(self._values(x))

    def _values(self, x: Float[Tensor, "batch 3 h w"]) -> Any:
        """What the encoder, or its feature layer, gives."""
        try:
            if self.kind == "hf":
                return self.module(pixel_values=x, **_in_order(self.module, x)).last_hidden_state
            if self.kind == "timm":
                return self.module.forward_features(x)
            return _open_clip_tokens(self.module, x)
        except Reached as reached:
            return reached.features

    def _flat(self, out: Tensor) -> Float[Tensor, "batch pos d_vision"]:
        if out.dim() == 3:
            return out
        return out.flatten(1, 2) if self._channels_last else out.flatten(2).transpose(1, 2)

    def __reduce__(self) -> Any:
        """For pickles and copies: the bare encoder, which is tapped again."""
        how = (self._asked_prefix, self.pooled, self.arch, self.feature_layer)
        return _tapped, (untap(share_weights(self.module)), self.kind, self.pixels, how)

    def at(self, feature_layer: str) -> HookedVision:
        """The same encoder, of which the bridge reads another feature layer."""
        return HookedVision(
            self.module,
            self.kind,
            self.pixels,
            n_prefix=self._asked_prefix,
            pooled=self.pooled,
            arch=self.arch,
            feature_layer=feature_layer,
        )

    def weights(
        self, layer: int
    ) -> tuple[Float[Tensor, "d_vision d_mlp"], Float[Tensor, "d_mlp d_vision"]]:
        """(W_in, W_out) of one MLP: columns read by, rows written by its neurons.

        What a neuron writes is scaled afterwards where the encoder has layer scale (BEiT, DINOv2).
        A gated MLP's W_in is its gate, the matrix before the nonlinearity (`mlp.hook_pre`).
        """
        if not 0 <= layer < self.n_layers:
            raise AddressError(
                f"There is no vision layer {layer}; this encoder has {self.n_layers}."
            )
        layout = LAYOUTS[self.kind]
        found = (find(self._blocks[layer], paths) for paths in (layout.mlp_in, layout.mlp_out))
        w_in, w_out = (getattr(linear, "weight", None) for linear in found)
        if w_in is None or w_out is None or w_in.shape != w_out.T.shape:
            name = type(self.module).__name__
            raise CapabilityError(
                f"Layer {layer} of {name} has no MLP with one W_in and one W_out."
            )
        return w_in.T, w_out.T

    def spec(self) -> dict[str, Any]:
        """What, besides the weights, `vision.wrap.build` needs to make it again. JSON-able."""
        out: dict[str, Any] = {"kind": self.kind, "class": type(self.module).__name__}
        out |= {"drop_prefix_tokens": self.n_prefix, "feature_layer": self.feature_layer}
        out |= self.pixels.to_dict()
        out |= {"pooled": True} if self.pooled else {}
        return out | ({"arch": self.arch} if self.arch else {})

    def check_labels(self, name: str) -> None:
        """Refuse to address a hook point by patches where it has no place for each of them.

        Raises:
            CapabilityError: the point holds a map or windows, or other positions than the features.
        """
        shape = self._unlabelled.get(name)
        if shape is not None:
            raise CapabilityError(
                f"{name!r} of {type(self.module).__name__} holds {shape} for two pictures, not one"
                f" place for each of {self.n_prefix} prefix tokens and {self.grid[0]} x"
                f" {self.grid[1]} patches, so they can't be addressed there: read or write it with"
                " a hook."
            )

    def _measure(self, n_prefix: int | None) -> None:
        """See `vision_measure`."""
        out = measure.first_pass(self)
        self._channels_last = measure.channels_last(self, out)
        self.n_prefix, self.grid = measure.grid(self, out, n_prefix)
        cold = self._flat(out)
        self.d_vision = cold.shape[-1]
        measure.check_places(self, out)
        plain = cold[:, self.n_prefix :]
        plain = plain.mean(dim=1, keepdim=True) if self.pooled else plain
        seen = measure.shapes(self, plain)
        self.hook_dict = {n: p for n, p in self.hook_dict.items() if len(seen.get(n, ())) == 1}
        if self.pooled:
            self.grid = (1, 1)
        n = self.n_prefix + self.grid[0] * self.grid[1]
        inside = [name for name in self.hook_dict if name not in ENDS]
        self._unlabelled = {
            name: seen[name][0] for name in inside if not measure.fits(name, seen[name][0], n)
        }


def _tapped(module: nn.Module, kind: str, pixels: Pixels, how: tuple[Any, ...]) -> HookedVision:
    names = ("n_prefix", "pooled", "arch", "feature_layer")
    return HookedVision(module, kind, pixels, **dict(zip(names, how, strict=True)))


def without_pooler(cls: type) -> dict[str, bool]:
    """The option that leaves out a transformers model's pooler, where that is optional."""
    arguments = inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}


def _in_order(module: Any, x: Tensor) -> dict[str, Tensor]:
    """ViTMAE sorts its patches by noise, drawn unless it is given: noise that is sorted already."""
    if getattr(getattr(module, "config", None), "model_type", "") != "vit_mae":
        return {}
    n = module.embeddings.patch_embeddings.num_patches
    return {"noise": torch.arange(n, device=x.device).float().expand(len(x), -1)}


def _open_clip_tokens(visual: Any, x: Tensor) -> Tensor:
    """What `output_tokens=True` returns, CLS kept; layer4 for a ModifiedResNet, as in LiMBeR."""
    if hasattr(visual, "layer4"):
        x = visual.stem(x)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
        return x
    x = visual.transformer(visual._embeds(x))
    if visual.attn_pool is None and not visual.final_ln_after_pool:
        x = visual.ln_post(x)
    return x


def _check_layer(layer: str, points: list[str], name: str) -> None:
    """Refuse a feature layer that isn't there, with the nearest that are."""
    usable = [p for p in points if p.endswith(_FEATURES)]
    if layer != LAST and layer not in usable:
        raise AddressError(
            f"{name} has no feature layer {layer!r}: {nearest(layer, [LAST, *usable])}"
        )


def _ends(taps: dict[str, Any]) -> dict[str, Any]:
    """The taps between `hook_pixels` and `hook_features`."""
    from transformer_lens.hook_points import HookPoint

    ends = {name: HookPoint() for name in ENDS}
    for name, point in ends.items():
        point.name = name
    return {"hook_pixels": ends["hook_pixels"], **taps, "hook_features": ends["hook_features"]}
