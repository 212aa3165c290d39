"""The encoder of Qwen2-VL and Qwen2.5-VL as one that reads pictures [picture, 3, h, w] of any size.

Their own forward pass reads the patches of all pictures as one sequence, ordered by the squares of
2 x 2 that are merged later, and in Qwen2.5-VL by windows of attention. Here patches are cut from
pixels, and what comes out (before the merger) is put into reading order. Which patch stands where
in the blocks is measured, once per size: the embedding is replaced by the number of each patch.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.vision.tap_hooks import Packed, Reached


class PackedEye(nn.Module):
    """Pixels to features of patches in reading order.

    Args:
        visual: the encoder of the class, whose merger is not used.

    Attributes:
        step: the edge of the square of pixels that is one position of a prompt.
        packed: the order of patches inside, of the pictures that are being read.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual, self.config = visual, visual.config
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
        out = self.visual(self._cut(pixel_values), grid_thw=grid.repeat(len(pixel_values), 1))
        return self.packed.apart(out.last_hidden_state, False)

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
            return torch.arange(len(out), device=out.device).to(out)[:, None].expand_as(out)

        def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
            raise Reached(args[0] if args else kwargs["hidden_states"])

        first = self.visual.blocks[0].register_forward_pre_hook
        handles = [
            self.visual.patch_embed.register_forward_hook(numbered),
            first(stop, with_kwargs=True, prepend=True),
        ]
        pixels = torch.zeros(1, 3, rows * self.patch, cols * self.patch).to(like)
        grid = torch.tensor([[1, rows, cols]], device=like.device)
        try:
            self.visual(self._cut(pixels), grid_thw=grid)
        except Reached as reached:
            return reached.features[:, 0].round().long()
        finally:
            for handle in handles:
                handle.remove()
        raise AssertionError("the first block was not reached")
