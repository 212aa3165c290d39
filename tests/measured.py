"""What passes the hook points of an encoder, and its axes compared with that."""

from __future__ import annotations

import torch

from mmlens.towers.vision.encoder import HookedVision


def passing(vision: HookedVision, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What passes each hook point."""
    seen: dict[str, torch.Tensor] = {}
    for point in vision.hook_dict.values():
        point.add_hook(lambda value, hook: seen.setdefault(hook.name, value.clone()))
    with torch.no_grad():
        vision(pixels)
    for point in vision.hook_dict.values():
        point.remove_hooks("both")
    return seen


def noise(vision: HookedVision, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, *vision.image_size, generator=draw)


def by_row_and_col(
    values: torch.Tensor, axes: tuple[str, ...], grid: tuple[int, int]
) -> torch.Tensor:
    """The size of a map's or a sequence's values per cell, [row, col]."""
    if axes[0] == "pos":
        return values.float().flatten(1).norm(dim=1).reshape(grid)
    channel = next(i for i, axis in enumerate(axes) if axis in ("channel", "unit"))
    return values.float().norm(dim=channel)


def check_sizes(vision: HookedVision) -> None:
    """Each axis is as long as what it names: rows as in `grids`, positions as the encoder has."""
    seen = passing(vision, noise(vision))
    n = vision.n_prefix + vision.grid[0] * vision.grid[1]
    for point, axes in vision.axes.items():
        sizes = dict(zip(axes, seen[point].shape[1:], strict=True))
        if point == "hook_pixels":
            assert axes == ("channel", "y", "x")
            assert tuple(sizes.values()) == (3, *vision.image_size)
        elif "row" in sizes:
            assert vision.grids[point] == (sizes["row"], sizes["col"])
        elif point != "hook_features":
            rows, cols = vision.grids.get(point, (1, n))
            lengths = {sizes[axis] for axis in ("pos", "query", "key") if axis in sizes}
            assert lengths == {rows * cols}, point
    assert {point for point, axes in vision.axes.items() if "row" in axes} <= set(vision.grids)
    maps = {point for point, value in seen.items() if value.dim() == 4 and value.shape[0] == 1}
    unclear = {p for p in maps if "attn" in p or ".conv" in p}  # windows; what sees everything
    assert maps <= set(vision.axes) | unclear


def check_squares(vision: HookedVision) -> None:
    """Where a quarter of the picture is repainted, that quarter of each map changes the most."""
    if not vision.grids:
        return
    high, wide = vision.image_size
    plain, other = noise(vision), noise(vision, 9)
    corners = [(lower, right) for lower in (0, 1) for right in (0, 1)]
    pictures = [plain]
    for lower, right in corners:
        y, x = lower * high // 2, right * wide // 2
        pictures.append(plain.clone())
        square = pictures[-1][..., y : y + high // 2, x : x + wide // 2]
        square.copy_(other[..., y : y + high // 2, x : x + wide // 2])
    seen = passing(vision, torch.cat(pictures))
    for point, (rows, cols) in vision.grids.items():
        mixed = point.endswith("hook_attn_out") or ".attn." in point
        if min(rows, cols) < 8 or mixed:
            continue  # in so few cells, or behind attention, everything sees everything
        before, *painted = seen[point]
        for (lower, right), after in zip(corners, painted, strict=True):
            change = by_row_and_col(after - before, vision.axes[point], (rows, cols))
            down, along = change.sum(1), change.sum(0)
            assert (down[-(rows // 2) :].sum() > down[: rows // 2].sum()) == bool(lower), point
            assert (along[-(cols // 2) :].sum() > along[: cols // 2].sum()) == bool(right), point
