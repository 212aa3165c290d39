"""What is measured when an encoder is wrapped, so that every label is verified.

1. It runs on pixels alone, gives finite features, and gives the same ones again.
2. Its positions are the patches in reading order after the prefix tokens: where a patch of the
   test picture is repainted, the position of that patch changes.
3. Opened attention gives the output of closed attention, module by module.
4. Every hook point fires once, and holds what its name says (`vision.point_names`). Those with one
   place per position, and maps and sequences on a grid of their own, can be addressed by patches;
   the others (windows of attention) can only be hooked by their raw name.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.attention import measuring, openings
from mmlens.towers.vision.calls import LAST
from mmlens.towers.vision.painting import halves, keeps_aspect, ramp
from mmlens.towers.vision.point_axes import order_of
from mmlens.towers.vision.tap_hooks import Reached, looking
from mmlens.values.errors import AddressError, CapabilityError, MMLensError, nearest

if TYPE_CHECKING:
    from mmlens.towers.vision.encoder import HookedVision

_FEATURES = ("hook_embed", "hook_resid_pre", "hook_resid_post", "mlp.hook_pre", "mlp.hook_post")
MAX_PREFIX = 16
"""Class token and registers are fewer than this; more remaining positions are something else."""


def check_layer(layer: str, points: list[str], name: str) -> None:
    """Refuse a feature layer that does not exist.

    Raises:
        AddressError: there is none of that name; the error names the nearest.
    """
    usable = [p for p in points if p.endswith(_FEATURES)]
    if layer != LAST and layer not in usable:
        raise AddressError(
            f"{name} has no feature layer {layer!r}: {nearest(layer, [LAST, *usable])}"
        )


def first_pass(vision: HookedVision) -> Tensor:
    """The encoder's features of the test picture; opened attention is compared in the same pass.

    Raises:
        CapabilityError: the encoder needs more than pixels, or its features can't be used.
    """
    name = type(vision.module).__name__
    try:
        with measuring(openings(vision.module)):
            out = vision._values(ramp(vision))
    except MMLensError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CapabilityError(
            f"{name} can't be run on pixels of {vision.image_size[0]} x {vision.image_size[1]}"
            f" alone, which is how mmlens runs an encoder: {reason}"
        ) from error
    if not isinstance(out, Tensor) or out.dim() not in (3, 4) or out.shape[0] != 1:
        what = f"values of shape {tuple(out.shape)}" if isinstance(out, Tensor) else "no tensor"
        raise CapabilityError(
            f"{name} gives {what} for one picture, and mmlens needs [1, position, dim] or a map"
            " [1, dim, row, column]."
        )
    if not bool(torch.isfinite(out).all()):
        raise CapabilityError(
            f"{name} gives NaN or infinite features for a plain picture in {vision.dtype}: wrap it"
            " in float32 or bfloat16, or look at its weights."
        )
    return out


def channels_last(vision: HookedVision, out: Tensor) -> bool:
    """Whether a map is [batch, row, column, dim]: by its shape, or by what repainting changes."""
    if out.dim() != 4:
        return False
    _, a, b, c = out.shape
    first, last = keeps_aspect(b, c, vision), keeps_aspect(a, b, vision)
    if first != last:
        return last
    order = order_of(vision, (a, b, c), vision._values(halves(vision)))
    if order is None:
        return getattr(vision.module, "output_fmt", "NCHW") == "NHWC"
    return order[-1] == "channel"


def grid(vision: HookedVision, out: Tensor, n_prefix: int | None) -> tuple[int, tuple[int, int]]:
    """(number of prefix tokens, (rows, cols)) of the encoder's output.

    Raises:
        CapabilityError: no grid of patches has so many positions.
    """
    if out.dim() == 4:
        rows, cols = out.shape[1:3] if vision.channels_last else out.shape[2:]
        if not n_prefix and keeps_aspect(rows, cols, vision):
            return 0, (rows, cols)
        n = f"a map of {rows} x {cols}"
    else:
        found = _split(out.shape[1], vision, n_prefix)
        if found is not None:
            return found
        n = f"{out.shape[1]} positions"
    raise CapabilityError(
        f"{type(vision.module).__name__} gives {n}, which is not a grid of patches after "
        f"{n_prefix if n_prefix is not None else 'any number of'} prefix tokens; n_prefix= says how"
        " many positions come before the patches."
    )


def _split(
    n: int, vision: HookedVision, n_prefix: int | None
) -> tuple[int, tuple[int, int]] | None:
    """`n` positions as prefix tokens and a grid, by what is known of the encoder."""
    named = getattr(vision.module, "num_prefix_tokens", None)  # set by timm
    told = [n_prefix] if n_prefix is not None else [named] if isinstance(named, int) else []
    rows, cols = vision.image_size
    convs = (m for m in vision.module.modules() if isinstance(m, nn.Conv2d))
    if (conv := next(convs, None)) is not None:  # the patch projection comes first
        rows, cols = rows // int(conv.stride[0]), cols // int(conv.stride[1])
        extra = n - rows * cols
        if extra in told or (not told and 0 <= extra < MAX_PREFIX):
            return extra, (rows, cols)
    for prefix in told if n_prefix is not None else [*told, 0, 1]:
        rows = round(math.sqrt(max(n - prefix, 0) * vision.image_size[0] / vision.image_size[1]))
        cols = (n - prefix) // rows if rows else 0
        clear = prefix in (*told, 0) or min(rows, cols) > 1  # what is guessed must be measurable
        if rows * cols == n - prefix > 0 and keeps_aspect(rows, cols, vision) and clear:
            return prefix, (rows, cols)
    return None


def check_places(vision: HookedVision, out: Tensor) -> None:
    """Refuse an encoder whose positions are not its patches in reading order.

    Where the embeddings have these positions, three cells are repainted and read there, before
    attention mixes positions; otherwise four quarters of the picture, read at the features. A map
    has rows and columns by itself; it is checked only if its axes are ambiguous.
    """
    if out.dim() == 4 and not (out.shape[1] == out.shape[2] == out.shape[3]):
        return
    n, at_embed = vision._flat(out).shape[1], _positions_of_embedding(vision)
    prefix, (rows, cols) = vision.n_prefix, vision.grid
    if at_embed in (n, rows * cols):
        prefix = prefix if at_embed == n else 0
        right = _cells_land(vision, prefix)
    else:
        right = min(rows, cols) < 2 or _quarters_land(vision)
    if not right:
        raise CapabilityError(
            f"{type(vision.module).__name__} has {n} positions, but they are not"
            f" {vision.n_prefix} prefix tokens and then {rows} x {cols} patches in reading order:"
            " where the test picture was repainted, other positions changed."
        )


def _embedded(vision: HookedVision, x: Float[Tensor, "batch 3 h w"]) -> Any:
    """The value at `hook_embed`, where the forward pass ends; None if it is not reached."""
    point, kept = vision.hook_dict.get("hook_embed"), []
    if point is None:
        return None

    def stop(tensor: Any, hook: Any) -> None:
        kept.append(tensor)
        raise Reached(tensor)

    with looking([point], stop):
        vision._values(x)
    return kept[0] if kept else None


def _positions_of_embedding(vision: HookedVision) -> int | None:
    value = _embedded(vision, ramp(vision))
    return value.shape[1] if isinstance(value, Tensor) and value.dim() == 3 else None


def _cells_land(vision: HookedVision, prefix: int) -> bool:
    (rows, cols), plain = vision.grid, ramp(vision)
    before, high, wide = _embedded(vision, plain), *vision.image_size
    for row, col in ((0, 0), (0, cols - 1), (rows - 1, cols - 1)):
        painted = plain.clone()
        top, left = row * high // rows, col * wide // cols
        cell = painted[..., top : (row + 1) * high // rows, left : (col + 1) * wide // cols]
        cell.copy_(1.0 - cell)
        change = (_embedded(vision, painted) - before)[0].float().norm(dim=-1)
        place = int(change.argmax()) - prefix
        # a stem of several convolutions also reads neighbouring cells
        if place < 0 or max(abs(place // cols - row), abs(place % cols - col)) > 1:
            return False
    return True


def _quarters_land(vision: HookedVision) -> bool:
    """Each repainted quarter of the picture changes its own quarter of the features the most."""
    (rows, cols), plain = vision.grid, ramp(vision)
    before, high, wide = vision._tokens(plain), *vision.image_size
    for top in (0, 1):
        for left in (0, 1):
            painted = plain.clone()
            part = painted[..., top * high // 2 :, left * wide // 2 :][
                ..., : high // 2, : wide // 2
            ]
            part.copy_(1.0 - part)
            change = (vision._tokens(painted) - before)[0, vision.n_prefix :].float().norm(dim=-1)
            change = change.reshape(rows, cols)
            half, side = rows // 2, cols // 2
            each = torch.stack(
                [
                    change[:half, :side].mean(),
                    change[:half, cols - side :].mean(),
                    change[rows - half :, :side].mean(),
                    change[rows - half :, cols - side :].mean(),
                ]
            )
            if int(each.argmax()) != 2 * top + left:
                return False
    return True


def keep_values(vision: HookedVision) -> None:
    """Switch off nonlinearities that write over what a hook has kept, where there are any.

    ReLUs work in place. One that has a point of its own is given a copy while that point has a
    hook; here it is measured whether any other point's value changes after it was seen.
    """
    in_place = [m for m in vision.module.modules() if getattr(m, "inplace", False)]
    seen: list[tuple[Tensor, int]] = []
    if not in_place:
        return
    points = [point for name, point in vision.hook_dict.items() if not _at_nonlinearity(name)]

    def look(tensor: Tensor, hook: Any) -> None:
        seen.append((tensor, tensor._version))

    with torch.inference_mode(False), torch.no_grad(), looking(points, look):
        vision._values(ramp(vision))
    if any(tensor._version != version for tensor, version in seen):
        for module in in_place:
            module.inplace = False  # pyright: ignore


def _at_nonlinearity(name: str) -> bool:
    return name.endswith(("hook_resid_add", "hook_pre"))


def shapes(vision: HookedVision, plain: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Per hook point, the shapes of its values when two pictures were read with every hook set.

    Raises:
        CapabilityError: the features are not those of the first pass, or pictures are not apart.
    """
    seen: dict[str, list[tuple[int, ...]]] = {}

    def look(tensor: Tensor, hook: Any) -> None:
        seen.setdefault(hook.name, []).append(tuple(tensor.shape))

    picture = ramp(vision)
    with looking(vision.hook_dict.values(), look):
        again = vision._read(torch.cat((picture, 1.0 - picture)))
    name = type(vision.module).__name__
    if again.shape != (2, *plain.shape[1:]):
        raise CapabilityError(
            f"{name} gives features of shape {tuple(again.shape)} for two pictures and"
            f" {tuple(plain.shape)} for one: it joins the pictures of a batch."
        )
    tolerance = 1e-3 if vision.dtype in (torch.float32, torch.float64) else 5e-2
    if not (again[:1] - plain).abs().max() <= tolerance * (1 + plain.abs().max()):
        raise CapabilityError(
            f"{name} gives other features each time it reads one picture, or beside another one, so"
            " nothing measured in it would hold: switch off what it draws at random."
        )
    return seen
