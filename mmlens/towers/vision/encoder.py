"""A frozen vision encoder whose activations have TransformerLens' hook names.

`HookedVision` composes: it holds a copy of the encoder that shares the caller's weights (no bytes
are copied, the caller's module is never touched) and taps its tensors with TransformerLens
HookPoints (`vision.taps`). Whatever the library, it takes pixels [batch, 3, h, w] and gives
features [batch, patch, d_vision]: row-major patches, prefix tokens (CLS, registers) dropped,
convolutional maps flattened "b d h w -> b (h w) d", or one mean vector when `pooled`.

    vision = wrap_vision(AutoModel.from_pretrained("google/vit-base-patch16-224"))
    features = vision(vision.preprocess(picture)[None])
    vision.hook_dict["blocks.3.mlp.hook_post"].add_hook(lambda value, hook: value * 0)

Its properties are measured at wrapping (`vision.measure`): points that do not fire are not in
`hook_dict`, attention that cannot be opened exactly stays closed, and an encoder whose positions
are not its patches in reading order is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.runtime.casting import Movable
from mmlens.towers.dictionaries.hosting import dictionaries_of, hosting_all
from mmlens.towers.vision import calls, class_head, measure
from mmlens.towers.vision.calls import LAST, without_pooler
from mmlens.towers.vision.pixels import Pixels
from mmlens.towers.vision.point_axes import ENDS, axes_and_grids, fits, with_ends
from mmlens.towers.vision.point_names import misnamed
from mmlens.towers.vision.prefix_tokens import markers
from mmlens.towers.vision.taps import attach, mlp_weights
from mmlens.towers.vision.tower import VisionTower
from mmlens.values.errors import AddressError, CapabilityError, PictureError

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


class HookedVision(VisionTower, Movable):
    """One interface to the encoders of transformers, open_clip and timm.

    Args:
        module: the encoder; a storage-sharing, frozen copy of it in eval mode becomes `.module`.
        kind: the library whose conventions it follows: "hf", "open_clip" or "timm".
        pixels: its preprocessing recipe.
        n_prefix: tokens before the patches; None counts them.
        pooled: return the mean over the patches as one position (LiMBeR's NF-ResNet50).
        arch: how to build the module again without weights, where it has no config file.
        whole: the classifier that holds `module` and reads it, for class logits; a timm model is
            its own.
        class_names: of its classes, where its configuration has none; () for no classes.
        keep_prefix: whether the tokens before the patches are among the features (a Q-Former reads
            the class token, too).
        feature_layer: what the bridge reads: "last_hidden_state", or the hook point of one block,
            such as "blocks.22.hook_resid_post" (LLaVA's layer -2 of 24) or "blocks.5.mlp.hook_post"
            (its units). The forward pass ends there; hook points beyond don't exist.

    Attributes:
        axes: per hook point what its axes are, batch axis left out: ("pos", "dim"), ("channel",
            "row", "col"), ... (`vision.point_axes`). Points of other shapes have no entry.
        grids: (rows, cols) of the hook points with a grid of their own: maps, and sequences that
            are finer or coarser than the features.
        markers: the names of the `n_prefix` tokens before the patches, in order.
        class_names: one per class logit; empty without a head.
        class_points: the hook points that fire in `classify`.

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
        whole: nn.Module | None = None,
        class_names: tuple[str, ...] | None = None,
        feature_layer: str = LAST,
        keep_prefix: bool = False,
    ) -> None:
        super().__init__()
        self.whole, self._path = class_head.shared(whole, module)
        self.module: Any = self.inside if self.whole is not None else class_head.untapped(module)
        if without_pooler(type(module)):  # only a head reads it
            self.module = class_head.without_child(self.module, "pooler")
        if hasattr(getattr(self.module, "config", None), "mask_ratio"):
            self.module.config.mask_ratio = 0.0  # a masked autoencoder sees the whole picture here
        self.kind, self.pixels, self.pooled, self.arch = kind, pixels, pooled, arch
        self.n_prefix, self.feature_layer, self.keep_prefix = 0, feature_layer, keep_prefix
        self._asked_prefix, self._asked_names = n_prefix, class_names
        taps, blocks = attach(self.module, kind, feature_layer)
        measure.check_layer(feature_layer, list(taps), type(self.module).__name__)
        self._blocks: list[nn.Module] = blocks  # a plain list: they're part of `module` already
        self.hook_dict: dict[str, HookPoint] = with_ends(taps)
        with torch.no_grad():
            self._measure(n_prefix)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def n_classes(self) -> int:
        """Number of class logits; 0 without a head."""
        return len(self.class_names)

    @property
    def inside(self) -> Any:
        """The encoder as its classifier holds it, pooler included."""
        return self.whole.get_submodule(self._path) if self.whole is not None else self.module

    @property
    def classifier(self) -> nn.Module | None:
        """The module that gives class logits, if any."""
        return self.module if self.kind == "timm" and self.whole is None else self.whole

    @property
    def image_size(self) -> tuple[int, int]:
        """(rows, columns) of the pixels it takes."""
        return self.pixels.size

    def preprocess(self, picture: object) -> Float[Tensor, "3 h w"]:
        """A PIL picture as the encoder was trained to see it: deterministic, float32."""
        return self.pixels(picture)

    def box(
        self, row: int, col: int, width: int, height: int, grid: tuple[int, int] | None = None
    ) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a patch in pixels of a picture of (width, height), crop included.

        For a convolutional net this is the patch's cell; its receptive field is larger.

        Args:
            grid: (rows, cols) that the patch is a cell of, an item of `grids`; None for the
                features'.
        """
        rows, cols = grid or self.grid
        if not (0 <= row < rows and 0 <= col < cols):
            raise AddressError(f"Patch ({row}, {col}) is outside the grid of {rows} x {cols}.")
        return self.pixels.box(row, col, (rows, cols), width, height)

    def forward(
        self, pixels: Float[Tensor, "batch 3 h w"]
    ) -> Float[Tensor, "batch patch d_vision"]:
        """Features of the patches, in reading order."""
        self._check_pixels(pixels)
        return self._read(pixels)

    def classify(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch class"]:
        """Class logits of the whole classifier, with the hooks of `class_points`.

        Raises:
            CapabilityError: there is no head.
        """
        self._check_pixels(pixels)
        if not self.class_names:
            raise CapabilityError(
                f"{self._head.reason}, so there are no class logits: wrap a whole classifier, such"
                " as an AutoModelForImageClassification or timm.create_model(name,"
                f" num_classes=10), with {LAST!r} as its feature layer."
            )
        return class_head.run(self, self.classifier, self._head.tap, pixels)

    def _check_pixels(self, pixels: Tensor) -> None:
        step = getattr(self.module, "step", None)  # of an encoder that reads any size
        if step is not None and not any(edge % step for edge in pixels.shape[2:]):
            return
        if pixels.shape[1:] != (3, *self.image_size):
            raise PictureError(
                f"Pixels of shape {tuple(pixels.shape)} are not [batch, 3, {self.image_size[0]},"
                f" {self.image_size[1]}], which this encoder's patches are labelled for."
            )

    def _read(self, pixels: Float[Tensor, "batch 3 h w"]) -> Tensor:
        """Pixels to features, with the hooks of both."""
        pixels = self.hook_dict["hook_pixels"](pixels)
        tokens = self._tokens(pixels.to(self.device, self.dtype))
        tokens = tokens if self.keep_prefix else tokens[:, self.n_prefix :]
        if self.pooled:
            tokens = tokens.mean(dim=1, keepdim=True)
        return self.hook_dict["hook_features"](tokens)

    def _tokens(self, x: Float[Tensor, "batch 3 h w"]) -> Tensor:
        """The feature layer's values, prefix tokens included, maps flattened."""
        return self._flat(self._values(x))

    def _values(self, x: Float[Tensor, "batch 3 h w"]) -> Any:
        """The output of the encoder, or of its feature layer."""
        return calls.values(self.module, self.kind, x)

    def _flat(self, out: Tensor) -> Float[Tensor, "batch pos d_vision"]:
        return calls.flat(out, self.channels_last)

    def __reduce__(self) -> Any:
        """For pickles and copies: the encoder without taps, which is tapped again."""
        whole, path = class_head.shared(self.whole, self.inside)
        bare = whole.get_submodule(path) if whole is not None else class_head.untapped(self.module)
        how = {**self._options(), "whole": whole}
        return _tapped, (bare, self.kind, self.pixels, how, dictionaries_of(self))

    def at(self, feature_layer: str) -> HookedVision:
        """The same encoder with another feature layer."""
        options = {**self._options(), "whole": self.whole, "feature_layer": feature_layer}
        return HookedVision(self.inside, self.kind, self.pixels, **options)

    def _options(self) -> dict[str, Any]:
        """The arguments of the constructor, without modules."""
        return {
            "n_prefix": self._asked_prefix,
            "pooled": self.pooled,
            "arch": self.arch,
            "class_names": self._asked_names,
            "feature_layer": self.feature_layer,
            "keep_prefix": self.keep_prefix,
        }

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
        found = mlp_weights(self._blocks[layer], self.kind)
        if found is None:
            name = type(self.module).__name__
            raise CapabilityError(
                f"Layer {layer} of {name} has no MLP with one W_in and one W_out."
            )
        return found

    def spec(self) -> dict[str, Any]:
        """What `vision.wrap.build` needs to rebuild it, besides the weights. JSON-able."""
        out: dict[str, Any] = {"kind": self.kind, "class": type(self.module).__name__}
        out |= {"drop_prefix_tokens": self.n_prefix, "feature_layer": self.feature_layer}
        out |= self.pixels.to_dict()
        out |= {"pooled": True} if self.pooled else {}
        return out | ({"arch": self.arch} if self.arch else {})

    def check_labels(self, name: str) -> None:
        """Refuse to address a hook point by patches where it has no position for each of them.

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
        """See `mmlens.towers.vision.measure`."""
        out = measure.first_pass(self)
        self.channels_last = measure.channels_last(self, out)
        self.n_prefix, self.grid = measure.grid(self, out, n_prefix)
        cold = self._flat(out)
        self.d_vision = cold.shape[-1]
        measure.check_places(self, out)
        plain = cold if self.keep_prefix else cold[:, self.n_prefix :]
        plain = plain.mean(dim=1, keepdim=True) if self.pooled else plain
        seen = measure.shapes(self, plain)
        self.hook_dict = {n: p for n, p in self.hook_dict.items() if len(seen.get(n, ())) == 1}
        wrong = misnamed(self)
        self.hook_dict = {n: p for n, p in self.hook_dict.items() if n not in wrong}
        measure.keep_values(self)
        if self.pooled:
            self.grid = (1, 1)
        n = self.n_prefix + self.grid[0] * self.grid[1]
        inside = [name for name in self.hook_dict if name not in ENDS]
        self._unlabelled = {
            name: seen[name][0] for name in inside if not fits(name, seen[name][0], n)
        }
        fired = {name: seen[name][0] for name in self.hook_dict}
        self.axes, self.grids = axes_and_grids(self, fired, n)
        self.markers = markers(self.module, self.n_prefix)
        self._head = class_head.find_head(self, self._asked_names)
        self.class_names, self.class_points = self._head.names, self._head.points


def _tapped(
    module: nn.Module, kind: str, pixels: Pixels, options: dict[str, Any], held: Any = None
) -> HookedVision:
    return hosting_all(HookedVision(module, kind, pixels, **options), held or {})
