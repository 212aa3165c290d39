"""A denoiser whose activations have TransformerLens' hook names: its transformer blocks, numbered.

A UNet keeps its transformer blocks in its stages, a diffusion transformer in one list. They are
numbered in the order in which they run, and `paths` has the name of each in its module:

    denoiser.blocks.0.hook_resid_pre              [row, pos, d]
    denoiser.blocks.0.attn.hook_pattern           [row, head, query, key]     among positions
    denoiser.blocks.0.cross_attn.hook_pattern     [row, head, query, key]     to the prompt's tokens
    denoiser.blocks.0.mlp.hook_post               [row, pos, unit]            in a gated MLP (GEGLU,
                                                  SwiGLU) the product of value and gate
    denoiser.hook_prompt_embeds                   [row, pos, d]     what the text encoder gives
    denoiser.hook_noise                           [row, channel, y, x]    what the denoiser gives
    denoiser.hook_latents                         [prompt, channel, y, x] what a step begins with

Positions are squares of the latents, in reading order; every stage of a UNet has its own grid.
Which points fire, what the grids are, and whether what attention, cross-attention and MLP put out
is what is added to the residual stream (gates may follow), is measured in a run of the pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmlens.runtime.casting import Movable
from mmlens.runtime.sharing import share_weights
from mmlens.towers.attention import ATTENTION_POINTS, open_attention
from mmlens.towers.denoiser.denoiser_call import DenoiserCall
from mmlens.towers.tower import Tapped
from mmlens.towers.vision.tap_hooks import InTap, OutTap
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import DENOISER, Label, Marker, Patch
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

WHOLE = ("hook_latents", "hook_prompt_embeds", "hook_noise")
ADDED = ("hook_attn_out", "hook_cross_attn_out", "hook_mlp_out")
_POINTS = (*ATTENTION_POINTS[:3], "hook_attn_scores", *ATTENTION_POINTS[3:])


class HookedDenoiser(Tapped, Movable):
    """The UNet or transformer of a diffusion model, as the tower "denoiser".

    Args:
        module: it; a frozen copy that shares its memory becomes `.module`.

    Attributes:
        paths: per layer the path of its block in the module; in running order once measured.
        hook_dict: the points that fire, by name.
        axes: per point its axes, the batch left out, where they differ from the site's.
        prefix: how many positions of a block stand before those of the latents.

    Raises:
        CapabilityError: it has no blocks with cross-attention to a prompt.
    """

    name = DENOISER

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = share_weights(module)
        found = dict(_blocks(self.module))
        if not found and any(hasattr(part, "add_q_proj") for part in module.modules()):
            raise CapabilityError(
                f"In a {type(module).__name__} words and squares are positions of one attention"
                " (joint attention, as in Stable Diffusion 3 and FLUX), which mmlens does not take"
                " apart: it takes Stable Diffusion, SDXL, PixArt and Stable Audio."
            )
        if not found:
            raise CapabilityError(
                f"A {type(module).__name__} has no transformer blocks with cross-attention to a"
                " prompt ('attn2') and an MLP ('ff'), so mmlens has no hook points in it: it takes"
                " Stable Diffusion, SDXL, PixArt and Stable Audio."
            )
        self.paths = list(found)
        self.hook_dict: dict[str, Any] = {}
        self.axes: dict[str, tuple[str, ...]] = {}
        self.strides: dict[int, int] = {}
        self.prefix, self.flat, self.shape = 0, False, (0, 0)
        for name in WHOLE:
            self._point(name)
        self.call = DenoiserCall(self.module, {name: self.hook_dict[name] for name in WHOLE[1:]})
        for path, block in found.items():
            self._attach(path, block)

    def _point(self, name: str) -> HookPoint:
        from transformer_lens.hook_points import HookPoint

        self.hook_dict[name] = HookPoint()
        self.hook_dict[name].name = name
        return self.hook_dict[name]

    def _attach(self, path: str, block: Any) -> None:
        """Taps of one block; its points are called by its path until its number is known."""
        block.register_forward_pre_hook(
            InTap(self._point(f"{path}.hook_resid_pre")), with_kwargs=True
        )
        for part, attention in (("attn", block.attn1), ("cross_attn", block.attn2)):
            points = {name: self._point(f"{path}.{part}.{name}") for name in _POINTS}
            open_attention(attention, points)
            added = OutTap(self._point(f"{path}.hook_{part}_out"))
            attention.register_forward_hook(added)
        first, last = block.ff.net[0], linear_of(block)
        projection: Any = getattr(first, "proj", None)
        if getattr(projection, "out_features", 0) == last.in_features:  # no gate
            projection.register_forward_hook(OutTap(self._point(f"{path}.mlp.hook_pre")))
        last.register_forward_pre_hook(
            InTap(self._point(f"{path}.mlp.hook_post")), with_kwargs=True
        )
        block.ff.register_forward_hook(OutTap(self._point(f"{path}.hook_mlp_out")))
        block.register_forward_hook(OutTap(self._point(f"{path}.hook_resid_post")))

    # -- the tower ----------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """How many transformer blocks it has."""
        return len(self.paths)

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> Sequence[Label]:
        """Positions of latents of the size that the model makes by itself."""
        return self.positions(layer, self.shape)

    def grid_at(self, layer: int | None, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a block, for latents of so many rows and columns."""
        stride = 1 if layer is None else self.strides[layer]
        rows, cols = (-(-size // stride) for size in shape)
        return (1, shape[1]) if self.flat else (rows, cols)

    def positions(self, layer: int | None, shape: tuple[int, int]) -> tuple[Label, ...]:
        """The label of each position of a block: markers, then squares (or moments of a sound)."""
        rows, cols = self.grid_at(layer, shape)
        ahead = self.prefix if layer is not None else 0
        markers = tuple(Marker("global", at) for at in range(ahead))
        return (*markers, *(Patch(row, col) for row in range(rows) for col in range(cols)))

    def w_out(self, layer: int) -> Tensor:
        """Float[unit, d]: what each unit of a layer writes."""
        return linear_of(self.module.get_submodule(self.paths[layer])).weight.T

    # -- measured -----------------------------------------------------------------------------

    def measured(self, seen: Mapping[str, list[Any]], calls: int, shape: tuple[int, int]) -> None:
        """Number the blocks as they ran, and keep the points that fired once a call.

        Args:
            seen: by point what fired there, in running order; `calls` values each.
            shape: rows and columns of the latents.
        """
        ran = [name.removesuffix(".hook_resid_pre") for name in seen if "resid_pre" in name]
        for path in ran:
            if not self._adds_up(path, seen):
                seen = {n: v for n, v in seen.items() if n not in {f"{path}.{a}" for a in ADDED}}
        numbers = {path: number for number, path in enumerate(ran)}
        known, self.hook_dict = self.hook_dict, {}
        for name in seen:
            often = calls + 1 if name == "hook_latents" else calls
            path = next((path for path in ran if name.startswith(f"{path}.")), None)
            if len(seen[name]) != often:
                continue
            new = name if path is None else f"blocks.{numbers[path]}{name.removeprefix(path)}"
            self.hook_dict[new] = known[name]
            known[name].name = new
        self.paths, self.shape = ran, shape
        self.flat = seen["hook_latents"][0].ndim == 3
        if self.flat:
            self.axes |= dict.fromkeys(("hook_latents", "hook_noise"), ("channel", "pos"))
        for layer, path in enumerate(ran):
            self._measure_grid(layer, seen[f"{path}.hook_resid_pre"][0].shape[1], shape)

    def _measure_grid(self, layer: int, places: int, shape: tuple[int, int]) -> None:
        whole = shape[0] * shape[1]
        if self.flat:
            self.strides[layer], self.prefix = 1, places - whole
            return
        self.strides[layer] = max(1, round(math.sqrt(whole / places)))
        rows, cols = self.grid_at(layer, shape)
        if rows * cols != places:
            raise CapabilityError(
                f"{self.paths[layer]!r} has {places} positions for latents of {shape[0]} x"
                f" {shape[1]}, which are no grid, so mmlens cannot label them."
            )

    def _adds_up(self, path: str, seen: Mapping[str, list[Any]]) -> bool:
        """Whether the residual stream is the sum of what the parts of a block put out."""
        parts = [seen.get(f"{path}.{name}") for name in ("hook_resid_pre", *ADDED)]
        after = seen.get(f"{path}.hook_resid_post")
        if after is None or any(part is None for part in parts):
            return False
        total = sum(part[0] for part in parts if part is not None)
        return bool((total - after[0]).abs().max() <= 1e-4 * (1 + after[0].abs().max()))


def linear_of(block: Any) -> nn.Linear:
    """The matrix that reads the units of a block."""
    return [part for part in block.ff.net if isinstance(part, nn.Linear)][-1]


def _blocks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Transformer blocks with self-attention, cross-attention and an MLP."""
    for path, part in module.named_modules():
        parts: list[Any] = [getattr(part, name, None) for name in ("attn1", "attn2", "ff")]
        net = getattr(parts[-1], "net", None)
        cross = getattr(parts[1], "is_cross_attention", False)
        if None not in parts and cross and isinstance(net, nn.ModuleList):
            yield path, part
