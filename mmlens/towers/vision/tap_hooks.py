"""Torch hooks that route one tensor of an unchanged module through a HookPoint.

While nothing is attached to the point, they do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmlens.towers.attention import warm

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


class Reached(Exception):
    """Carries the features out of an encoder whose remaining layers need not run."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


class Packed:
    """The order of an encoder that reads the patches of all pictures as one sequence (Qwen2-VL).

    Attributes:
        pictures: how many are being read, all of one size.
        entering: Int[pos], which patch (in reading order) stands at each place of the embedding.
        inside: the same in the blocks, where windows may have another order.
    """

    def __init__(self) -> None:
        self.pictures = 1
        self.entering = self.inside = torch.arange(0)

    def apart(self, value: Tensor, entering: bool) -> Tensor:
        """[picture * pos, d] in the encoder's order as [picture, pos, d] in reading order."""
        order = self.entering if entering else self.inside
        return value.unflatten(0, (self.pictures, -1))[:, order.argsort()]

    def joined(self, value: Tensor, entering: bool) -> Tensor:
        """The inverse of `apart`."""
        return value[:, self.entering if entering else self.inside].flatten(0, 1)


class Tap:
    """Routes one tensor of a module through the point.

    Where `ends` is set the forward pass ends here, with `Reached`. With `packed`, all pictures are
    one sequence [pos, d] there, and the point gets [picture, pos, d] in reading order.
    """

    def __init__(self, point: HookPoint, ends: bool = False, packed: Packed | None = None) -> None:
        self.point, self.ends, self.packed = point, ends, packed

    def _through(self, value: Tensor) -> Tensor:
        if self.packed is None:
            return self.point(value)
        entering = self.point.name == "hook_embed"
        return self.packed.joined(self.point(self.packed.apart(value, entering)), entering)

    def _pointed(self, value: Any) -> Tensor | None:
        """The tensor after the point; None where nothing is attached, or it is no tensor."""
        if not isinstance(value, Tensor):
            return None
        if self.ends:
            raise Reached(self._through(value))
        return self._through(value) if warm(self.point) else None


class OutTap(Tap):
    """Forward hook: a module's output (or its first item) goes through the point."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        key = next(iter(output)) if isinstance(output, dict) else 0  # a ModelOutput is a dict
        value = self._pointed(output[key] if isinstance(output, (dict, tuple)) else output)
        if value is None:
            return None
        if isinstance(output, dict):
            output[key] = value
            return output
        return (value, *output[1:]) if isinstance(output, tuple) else value


class InTap(Tap):
    """Forward pre-hook (with kwargs): a module's first input goes through the point."""

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        value = self._pointed(args[0] if args else next(iter(kwargs.values()), None))
        if value is None:
            return None
        if not args:
            return args, {**kwargs, next(iter(kwargs)): value}
        # a ReLU in place would overwrite what a hook has kept
        value = value.clone() if getattr(module, "inplace", False) else value
        return (value, *args[1:]), kwargs


class TurnTap:
    """For one module that a block calls twice, attention first, MLP second (BEiT's drop_path).

    BEiT scales what a block adds by bare parameters, so no module outputs that tensor; the
    stochastic depth module after it, an identity in eval mode, does.
    """

    def __init__(self, attn: HookPoint, mlp: HookPoint) -> None:
        self.points = (attn, mlp)
        self.turn = 0

    def start(self, module: nn.Module, args: Any) -> None:
        self.turn = 0

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        point = self.points[self.turn % 2]
        self.turn += 1
        return point(output) if warm(point) else None


class Apart:
    """For an encoder that joins the pictures of a batch into one sequence (Pixtral): takes them
    apart again before its blocks, so that a batch has an axis of its own everywhere.

    Pictures of one size have the same positions, and no picture sees another.
    """

    def __init__(self) -> None:
        self.pictures = 1

    def count(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Pre-hook of the encoder: how many pictures there are."""
        self.pictures = len(args[0] if args else kwargs["pixel_values"])

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook of its blocks: [1, picture * pos, d] as [picture, pos, d]."""
        joined = args[0]
        n = joined.shape[1] // self.pictures
        places = tuple(table[..., :n, :] for table in kwargs["position_embeddings"])
        told = {"attention_mask": None, "position_embeddings": places}
        return (joined.reshape(self.pictures, n, -1), *args[1:]), {**kwargs, **told}


@contextmanager
def looking(points: Iterable[HookPoint], look: Callable[..., Any]) -> Iterator[None]:
    """Within this context, `look` gets the values of these points, which have no other hooks."""
    points = list(points)
    for point in points:
        point.add_hook(look)
    try:
        yield
    finally:
        for point in points:
            point.remove_hooks("both")
