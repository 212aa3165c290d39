"""Sequences of patches that are finer or coarser than the features: stages of Swin, PVT, Hiera.

Such a sequence [position, dim] has a grid of its own. That its positions are the cells of that grid
in reading order (and not windows, or the units of a masked autoencoder) is measured: where the
picture is repainted in a cell, that position changes the most. Cells of the finest grid are
repainted, and in a coarser one the cell around them changes: so one pass of five pictures tells of
all grids. It is measured on the residual stream, where a position still holds most of its own cell;
everything else in the block that has as many positions is computed position by position from it,
in the same order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.towers.vision.painting import keeps_aspect, ramp
from mmlens.towers.vision.tap_hooks import looking

if TYPE_CHECKING:
    from mmlens.towers.vision.encoder import HookedVision

Grid = tuple[int, int]
_STREAM = ("hook_embed", "hook_resid_pre", "hook_resid_post")
FINE = 4
"""In a grid with so many rows and columns a neighbouring cell may change more than the one that was
repainted: patches that overlap."""


def own_grids(vision: HookedVision, lengths: dict[str, int]) -> dict[str, Grid]:
    """The grid of each of these hook points whose positions are the cells of one, in order.

    Args:
        lengths: per hook point, how many positions it has.
    """
    grids = {n: grid for n in set(lengths.values()) if (grid := _grid(vision, n)) is not None}
    stream = {name for name in lengths if name.split(".", 2)[-1] in _STREAM}
    ordered = _in_order(vision, {s: grids[lengths[s]] for s in stream if lengths[s] in grids})
    held = {(_block(name), lengths[name]) for name in ordered}
    return {
        name: grids[n]
        for name, n in lengths.items()
        if (_block(name), n) in held and (name not in stream or name in ordered)
    }


def cells(rows: int, cols: int) -> list[Grid]:
    """Three corners and a cell inside: no other order of positions puts all four right."""
    return [(0, 0), (0, cols - 1), (rows - 1, 0), (rows // 2, cols // 3)]


def _grid(vision: HookedVision, n: int) -> Grid | None:
    """(rows, cols) of `n` square cells of the picture."""
    high, wide = vision.image_size
    rows = max(1, round(math.sqrt(n * high / wide)))
    cols = n // rows
    fits = rows * cols == n and min(rows, cols) > 1 and keeps_aspect(rows, cols, vision)
    return (rows, cols) if fits else None


def _in_order(vision: HookedVision, grids: dict[str, Grid]) -> set[str]:
    """The points where a repainted cell changes its own position the most.

    Args:
        grids: per point the grid that its positions may be the cells of.
    """
    if not grids:
        return set()
    found: set[str] = set()
    finest = max(grids.values())

    def look(tensor: Tensor, hook: Any) -> None:
        rows, cols = grid = grids[hook.name]
        change = (tensor[1:] - tensor[:1]).float().flatten(2).norm(dim=-1)
        here = [(r * rows // finest[0], c * cols // finest[1]) for r, c in cells(*finest)]
        off = [
            max(abs(place // cols - row), abs(place % cols - col))
            for place, (row, col) in zip(change.argmax(-1).tolist(), here, strict=True)
        ]
        if max(off) <= (1 if min(grid) >= FINE else 0):
            found.add(hook.name)

    with torch.no_grad(), looking((vision.hook_dict[name] for name in grids), look):
        vision._values(_repainted(vision, finest))
    return found


def _repainted(vision: HookedVision, grid: Grid) -> Tensor:
    """The test picture, and one more for each of `cells` with that cell repainted."""
    plain, (high, wide), (rows, cols) = ramp(vision), vision.image_size, grid
    pictures = [plain]
    for row, col in cells(rows, cols):
        pictures.append(plain.clone())
        down = slice(row * high // rows, (row + 1) * high // rows)
        along = slice(col * wide // cols, (col + 1) * wide // cols)
        cell = pictures[-1][..., down, along]
        cell.copy_(1.0 - cell)
    return torch.cat(pictures)


def _block(name: str) -> str:
    return name.split(".")[1] if name.startswith("blocks.") else name
