"""The measured axes of each hook point: positions and heads, or rows and columns.

A value for two pictures with one entry per position of the features has the axis `pos`. A value
with three more axes is a map, stored as [channel, row, col] or as [row, col, channel]: its rows and
columns form a grid with the picture's aspect ratio, and they are compared with what changes when
half of the picture is repainted; where the sizes allow both orders, repainting alone decides. A
sequence of other length has the axis `pos` too, and a grid of its own (`vision.own_grids`). A value
that is none of these (windows of attention) has no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.towers.attention import ATTENTION_POINTS
from mmlens.towers.vision.own_grids import own_grids
from mmlens.towers.vision.painting import CLEAR, CONTRADICTION, halves, keeps_aspect, leanings
from mmlens.towers.vision.tap_hooks import looking

if TYPE_CHECKING:
    from mmlens.towers.vision.encoder import HookedVision

Axes = dict[str, tuple[str, ...]]
Grids = dict[str, tuple[int, int]]
Shapes = dict[str, tuple[int, ...]]

ENDS = ("hook_pixels", "hook_features")
_NEURONS = ("mlp.hook_pre", "mlp.hook_post")
_ORDERS = (("channel", "row", "col"), ("row", "col", "channel"))


def with_ends(taps: dict[str, Any]) -> dict[str, Any]:
    """The taps between `hook_pixels` and `hook_features`."""
    from transformer_lens.hook_points import HookPoint

    ends = {name: HookPoint() for name in ENDS}
    for name, point in ends.items():
        point.name = name
    return {"hook_pixels": ends["hook_pixels"], **taps, "hook_features": ends["hook_features"]}


def fits(name: str, shape: tuple[int, ...], n: int) -> bool:
    """Whether a value of this shape, for two pictures, has one entry per position."""
    place = name.rsplit(".", 1)[-1]
    if place == "hook_pattern":
        return len(shape) == 4 and shape[0] == 2 and shape[2:] == (n, n)
    dims = 4 if place in ATTENTION_POINTS else 3
    return len(shape) == dims and shape[:2] == (2, n)


def axes_and_grids(vision: HookedVision, seen: Shapes, n: int) -> tuple[Axes, Grids]:
    """The axes of each hook point, batch axis left out, and the (rows, cols) of their own grids.

    Args:
        seen: the shape of each point's value for two pictures.
        n: number of positions of the features, prefix tokens included.
    """
    axes: Axes = {name: of_positions(name) for name in seen if fits(name, seen[name], n)}
    axes |= {"hook_pixels": ("channel", "y", "x"), "hook_features": ("pos", "dim")}
    rest = {
        name: shape
        for name, shape in seen.items()
        if name not in axes and len(shape) == 4 and shape[0] == 2 and not _attends(name)
    }
    grids: Grids = {}
    for name, order in _orders(vision, rest).items():
        channel = "unit" if name.endswith(_NEURONS) else "channel"
        axes[name] = tuple(channel if axis == "channel" else axis for axis in order)
        grids[name] = _grid(order, seen[name][1:])
    for name in rest:  # a nonlinearity computes its map value by value
        twin = _other_side(name)
        if name not in axes and twin in grids and seen[twin] == seen[name]:
            axes[name], grids[name] = axes[twin], grids[twin]
    others = {name: shape for name, shape in seen.items() if name not in axes}
    for name, grid in own_grids(vision, _lengths(others)).items():
        axes[name], grids[name] = of_positions(name), grid
    return {name: axes[name] for name in seen if name in axes}, grids


def _other_side(name: str) -> str:
    """The point on the other side of the same nonlinearity of a block of convolutions."""
    if ".conv" not in name:
        return ""
    path, _, side = name.rpartition("_")
    return f"{path}_{'post' if side == 'pre' else 'pre'}"


def _lengths(seen: Shapes) -> dict[str, int]:
    """How many positions each of these points has; those without a row per position left out."""
    counts = {
        name: shape[-1] if name.endswith("hook_pattern") else shape[1]
        for name, shape in seen.items()
        if name not in ENDS and len(shape) > 1
    }
    return {name: n for name, n in counts.items() if fits(name, seen[name], n)}


def order_of(
    vision: HookedVision, sizes: tuple[int, ...], halved: Tensor
) -> tuple[str, ...] | None:
    """The axes of one map, or None where neither order holds.

    Args:
        sizes: of its axes, batch axis left out.
        halved: its values for the four pictures of `painting.halves`.
    """
    rows, cols = leanings(halved)

    def leaning(order: tuple[str, ...]) -> float:
        return rows[order.index("row")] + cols[order.index("col")]

    possible = [order for order in _ORDERS if keeps_aspect(*_grid(order, sizes), vision)]
    possible = sorted(possible, key=leaning, reverse=True)
    if not possible:
        return None
    best = possible[0]
    if len(possible) == 2 and leaning(best) - leaning(possible[1]) < CLEAR:
        return None
    down, along = rows[best.index("row")], cols[best.index("col")]
    against = max(max(rows) - down, max(cols) - along)
    lopsided = max(down, along) >= CONTRADICTION and min(down, along) < CLEAR  # as of windows
    return None if against >= CONTRADICTION or lopsided else best


def _orders(vision: HookedVision, maps: Shapes) -> dict[str, tuple[str, ...]]:
    """The order of the axes at each of these points that is a map, measured in one pass."""
    found: dict[str, tuple[str, ...]] = {}
    if not maps:
        return found

    def look(tensor: Tensor, hook: Any) -> None:
        if tensor.shape == (4, *maps[hook.name][1:]):
            order = order_of(vision, tuple(tensor.shape[1:]), tensor.detach())
            found.update({hook.name: order} if order is not None else {})

    with torch.no_grad(), looking((vision.hook_dict[name] for name in maps), look):
        vision._values(halves(vision))
    return found


def of_positions(name: str) -> tuple[str, ...]:
    """The axes of a point that has one entry per position."""
    if name.endswith("hook_pattern"):
        return "head", "query", "key"
    if _attends(name):
        return "pos", "head", "dim"
    return "pos", "unit" if name.endswith(_NEURONS) else "dim"


def _attends(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ATTENTION_POINTS


def _grid(order: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[order.index("row")], sizes[order.index("col")]
