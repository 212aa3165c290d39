"""The projection of a bridge: features of patches to vectors of the soft prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmlens.towers.tower import Placed
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import Label, Patch
from mmlens.values.sites import SITES, Site

POINT = SITES["soft_prompt"].point


@dataclass(frozen=True)
class Projection(Placed):
    """A projection as a tower of a model (`mmlens.towers.tower`).

    Attributes:
        module: maps features [..., d_vision] to vectors [..., d_model].
        hook: the hook point at its output.
        grid: rows and columns of the patches.
    """

    module: nn.Module
    hook: Any
    grid: tuple[int, int]
    name = "projection"
    n_layers = 0

    @property
    def shared(self) -> Any:
        """The module itself."""
        return self.module

    @property
    def points(self) -> Mapping[str, Any]:
        """The one hook point, at the output."""
        return {POINT: self.hook}

    @property
    def every_point(self) -> Mapping[str, Any]:
        """The one hook point."""
        return self.points

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site unchanged: one vector per patch."""
        return site

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> Sequence[Label]:
        """The patches in reading order."""
        rows, cols = self.grid
        return tuple(Patch(row, col, image, crop) for row in range(rows) for col in range(cols))


def keeps_positions(projection: nn.Module, out: Any, positions: int) -> None:
    """Refuse a projection that pools or resamples: a position of its output is no patch.

    Args:
        out: its output for features [picture, positions, d_vision].
    """
    shape = tuple(getattr(out, "shape", ()))
    if len(shape) != 3 or shape[1] != positions:
        given = f"{shape[1]} positions" if len(shape) == 3 else f"values of shape {shape}"
        raise CapabilityError(
            f"This projection (a {type(projection).__name__}) makes {given} of {positions} patches,"
            " and a bridge shows the language model one position for each patch: give a projection"
            " of single patches, or an encoder wrapped with pooled=True for the mean of all."
        )
