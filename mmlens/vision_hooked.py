"""A frozen vision encoder whose insides have TransformerLens names.

`HookedVision` composes: it holds a copy of the encoder that shares the caller's weights (no bytes
are copied, the caller's module is never touched) and taps its tensors with TransformerLens
HookPoints (`vision_points`). Whatever the library, it takes pixels [batch, 3, h, w] and gives
features [batch, patch, d_vision]: row-major patches, prefix tokens (CLS, registers) dropped,
convolutional maps flattened "b d h w -> b (h w) d", or one mean vector when `pooled`.

    vision = wrap_vision(AutoModel.from_pretrained("google/vit-base-patch16-224"))
    features = vision(vision.preprocess(picture)[None])
    vision.hook_dict["blocks.3.mlp.hook_post"].add_hook(lambda value, hook: value * 0)

At wrapping two forward passes measure which points fire and whether opened attention gives the
features of the closed one; what fails is not in `hook_dict`.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.casting import Movable
from mmlens.errors import AddressError, CapabilityError, nearest
from mmlens.lm import share_weights
from mmlens.vision_pixels import Pixels
from mmlens.vision_points import LAYOUTS, Reached, attach, detach_attention, find, untap

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


LAST = "last_hidden_state"
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
        self.kind, self.pixels, self.pooled, self.arch = kind, pixels, pooled, arch
        self.n_prefix, self.feature_layer = n_prefix or 0, feature_layer
        taps, blocks = attach(self.module, kind, feature_layer)
        _check_layer(feature_layer, list(taps), type(self.module).__name__)
        self._blocks: list[nn.Module] = blocks  # a plain list: they're part of `module` already
        self.hook_dict: dict[str, HookPoint] = _ends(taps)
        with torch.no_grad():
            cold = self._tokens(_ramp(self))
            self.n_prefix, self.grid = _grid(cold.shape[1], self, n_prefix)
            self.d_vision = cold.shape[-1]
            self._keep_what_fires(cold[:, self.n_prefix :])
        if pooled:
            self.grid = (1, 1)

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
        pixels = self.hook_dict["hook_pixels"](pixels)
        tokens = self._tokens(pixels.to(self.device, self.dtype))[:, self.n_prefix :]
        if self.pooled:
            tokens = tokens.mean(dim=1, keepdim=True)
        return self.hook_dict["hook_features"](tokens)

    def _tokens(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch pos d_vision"]:
        """The feature layer's values, prefix tokens included."""
        try:
            if self.kind == "hf":
                out = self.module(pixel_values=x).last_hidden_state
            elif self.kind == "timm":
                out = self.module.forward_features(x)
            else:
                out = _open_clip_tokens(self.module, x)
        except Reached as reached:
            out = reached.features
        if out.dim() == 4 and getattr(self.module, "output_fmt", "NCHW") == "NHWC":
            out = out.movedim(-1, 1)
        return out.flatten(2).transpose(1, 2) if out.dim() == 4 else out

    def __reduce__(self) -> Any:
        """For pickles and copies: the bare encoder, which is tapped again."""
        how = (self.n_prefix, self.pooled, self.arch, self.feature_layer)
        return _tapped, (untap(share_weights(self.module)), self.kind, self.pixels, how)

    def at(self, feature_layer: str) -> HookedVision:
        """The same encoder, of which the bridge reads another feature layer."""
        return HookedVision(
            self.module,
            self.kind,
            self.pixels,
            n_prefix=self.n_prefix,
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
        """What, besides the weights, `mmlens.vision.build` needs to make it again. JSON-able."""
        out: dict[str, Any] = {"kind": self.kind, "class": type(self.module).__name__}
        out |= {"drop_prefix_tokens": self.n_prefix, "feature_layer": self.feature_layer}
        out |= self.pixels.to_dict()
        out |= {"pooled": True} if self.pooled else {}
        return out | ({"arch": self.arch} if self.arch else {})

    def _keep_what_fires(self, cold: Tensor) -> None:
        """Drops the points that don't fire, and opened attention that isn't the closed one."""
        fired: set[str] = set()
        for name, point in self.hook_dict.items():
            point.add_hook(lambda tensor, hook, name=name: fired.add(name))
        try:
            pooled, self.pooled = self.pooled, False
            hot = self(_ramp(self))
            self.pooled = pooled
        finally:
            for point in self.hook_dict.values():
                point.remove_hooks("both")
        keep = {name: point for name, point in self.hook_dict.items() if name in fired}
        tolerance = 1e-3 if self.dtype in (torch.float32, torch.float64) else 5e-2
        if not (hot - cold).abs().max() <= tolerance * (1 + cold.abs().max()):
            detach_attention(self._blocks, self.kind)
            keep = {name: point for name, point in keep.items() if ".attn.hook_" not in name}
        self.hook_dict = keep


def _tapped(module: nn.Module, kind: str, pixels: Pixels, how: tuple[Any, ...]) -> HookedVision:
    names = ("n_prefix", "pooled", "arch", "feature_layer")
    return HookedVision(module, kind, pixels, **dict(zip(names, how, strict=True)))


def without_pooler(cls: type) -> dict[str, bool]:
    """The option that leaves out a transformers model's pooler, where that is optional."""
    arguments = inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}


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


def _ramp(vision: HookedVision) -> Float[Tensor, "1 3 h w"]:
    """A fixed test picture (no random numbers are drawn)."""
    rows, cols = vision.image_size
    values = torch.linspace(-7, 7, 3 * rows * cols).sin().reshape(1, 3, rows, cols)
    return values.to(vision.device, vision.dtype)


def _grid(n: int, vision: HookedVision, n_prefix: int | None) -> tuple[int, tuple[int, int]]:
    """(number of prefix tokens, (rows, cols)) for `n` positions."""
    rows, cols = vision.image_size
    convs = (m for m in vision.module.modules() if isinstance(m, nn.Conv2d))
    if (conv := next(convs, None)) is not None:  # the patch projection comes first
        rows, cols = rows // int(conv.stride[0]), cols // int(conv.stride[1])
        if n - rows * cols == n_prefix or (n_prefix is None and 0 <= n - rows * cols < 16):
            return n - rows * cols, (rows, cols)
    left = n - (n_prefix or 0)
    ratio = vision.image_size[0] / vision.image_size[1]
    rows = round(math.sqrt(left * ratio))
    if rows and rows * (left // rows) == left:  # a pyramid: the last map keeps the aspect
        return n_prefix or 0, (rows, left // rows)
    raise CapabilityError(
        f"{type(vision.module).__name__} gives {n} positions, which is not a grid of patches after "
        f"{n_prefix if n_prefix is not None else 'any number of'} prefix tokens."
    )


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

    ends = {"hook_pixels": HookPoint(), "hook_features": HookPoint()}
    for name, point in ends.items():
        point.name = name
    return {"hook_pixels": ends["hook_pixels"], **taps, "hook_features": ends["hook_features"]}
