"""The encoders of Qwen-VL and GLM-V as ones that read pictures [picture, 3, h, w] of any size.

Their own forward pass reads the patches of all pictures as one sequence, ordered by the squares of
2 x 2 that are merged later, and in Qwen2.5-VL by windows of attention. Here patches are cut from
pixels, and what comes out (before the merger) is put into reading order. Which patch stands where
in the blocks is measured, once per size: the embedding is replaced by the number of each patch.

Qwen3-VL's prompt is given what leaves several blocks (`deep`), not the last alone: its features are
those of each patch side by side, the last block's first. GLM-V's encoder joins squares of patches
by a convolution of its own (`downsample`), in front of which it is stopped.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.vision.tap_hooks import Packed, Reached

_DIGITS = 3
_BASE = 128
"""A patch's number is written in digits, each of which bfloat16 holds exactly."""


class PackedEye(nn.Module):
    """Pixels to features of patches in reading order.

    Args:
        visual: the encoder of the class, whose mergers are not used.

    Attributes:
        deep: the blocks whose outputs the prompt is given beside the last one's.
        step: the edge of the square of pixels that is one position of a prompt.
        packed: the order of patches inside, of the pictures that are being read.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual, self.config = _unmerged(visual), visual.config
        self.deep = tuple(getattr(visual.config, "deepstack_visual_indexes", ()))
        self.merge, self.patch = visual.config.spatial_merge_size, visual.config.patch_size
        self.step = self.merge * self.patch
        self.packed = Packed()

    @property
    def blocks(self) -> Any:
        """The blocks, where mmlens looks for them."""
        return self.visual.blocks

    @property
    def embeddings(self) -> Any:
        """What patches enter through."""
        return self.visual.patch_embed

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch d"]:
        """Features of the patches before they are merged."""
        rows, cols = (edge // self.patch for edge in pixel_values.shape[2:])
        self._arrange(len(pixel_values), rows, cols, pixel_values)
        grid = torch.tensor([[1, rows, cols]], device=pixel_values.device)
        try:
            out = self.visual(self._cut(pixel_values), grid_thw=grid.repeat(len(pixel_values), 1))
        except _Ended as end:
            return self.packed.apart(end.features, False)
        several = [out.last_hidden_state, *(out.deepstack_features if self.deep else ())]
        return torch.cat([self.packed.apart(one, False) for one in several], -1)

    def _cut(self, pixels: Tensor) -> Tensor:
        """Patches as the encoder takes them, in its order: [patch, 3 * time * y * x]."""
        p, time = self.patch, self.config.temporal_patch_size
        patches = pixels.unfold(2, p, p).unfold(3, p, p)  # [b, 3, row, col, y, x]
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)[:, self.packed.entering]
        return patches[:, :, :, None].expand(-1, -1, -1, time, -1, -1).flatten(2).flatten(0, 1)

    @torch.no_grad()
    def _arrange(self, pictures: int, rows: int, cols: int, like: Tensor) -> None:
        """Note which patch stands where."""
        self.packed.pictures = pictures
        m, numbers = self.merge, torch.arange(rows * cols, device=like.device)
        squares = numbers.view(rows // m, m, cols // m, m).permute(0, 2, 1, 3).flatten()
        if not torch.equal(self.packed.entering.to(squares.device), squares):
            self.packed.entering = squares
            self.packed.inside = squares[self._reordered(rows, cols, like)]

    def _reordered(self, rows: int, cols: int, like: Tensor) -> Tensor:
        """Int[patch]: which entering place stands at each place of the first block."""

        def numbered(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            left, digits = torch.arange(len(out), device=out.device), torch.zeros_like(out)
            for digit in range(_DIGITS):
                digits[:, digit] = (left // _BASE**digit % _BASE).to(out)
            return digits

        def nothing(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            return torch.zeros_like(out)

        def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
            raise Reached(args[0] if args else kwargs["hidden_states"])

        places = [one for one in self.visual.children() if isinstance(one, nn.Embedding)]
        names = ("embeddings", "post_conv_layernorm", "patch_embed")  # the last of them runs first
        entrance = next(getattr(self.visual, one) for one in names if hasattr(self.visual, one))
        handles = [
            entrance.register_forward_hook(numbered),
            *(one.register_forward_hook(nothing) for one in places),
            self.visual.blocks[0].register_forward_pre_hook(stop, with_kwargs=True, prepend=True),
        ]
        pixels = torch.zeros(1, 3, rows * self.patch, cols * self.patch).to(like)
        grid = torch.tensor([[1, rows, cols]], device=like.device)
        try:
            self.visual(self._cut(pixels), grid_thw=grid)
        except Reached as reached:
            digits = reached.features[:, :_DIGITS].round().long()
            return sum(digits[:, digit] * _BASE**digit for digit in range(_DIGITS))  # type: ignore[return-value]
        finally:
            for handle in handles:
                handle.remove()
        raise AssertionError("the first block was not reached")


class _Ended(Exception):
    """Raised behind the blocks of GLM-V, with what left them."""

    def __init__(self, features: Tensor) -> None:
        super().__init__("the blocks are at their end")
        self.features = features


class _End(nn.Module):
    """The norm behind the blocks, and then no more.

    Args:
        norm: what is left out is behind it.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden: Tensor) -> Tensor:
        """Never returns: what it gives is raised."""
        raise _Ended(self.norm(hidden))


def _unmerged(visual: Any) -> Any:
    """The encoder without the mergers behind its blocks, so that it gives what they read."""
    if hasattr(visual, "downsample"):
        out = copy.copy(visual)
        out._modules = {**visual._modules, "post_layernorm": _End(visual.post_layernorm)}
        return out
    if not hasattr(visual, "deepstack_merger_list"):
        return visual
    out = copy.copy(visual)
    plain = nn.ModuleList(nn.Identity() for _ in visual.deepstack_merger_list)
    out._modules = {**visual._modules, "deepstack_merger_list": plain}
    return out
