"""The vision encoder as a tower of a model: its points, sites and labels under "vision."."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmlens.towers.tower import Placed
from mmlens.values.labels import Label, Marker, Patch
from mmlens.values.sites import Site

NAME = "vision"
_PREFIX = f"{NAME}."


class VisionTower(Placed):
    """The tower interface of a `HookedVision` (`mmlens.towers.tower`)."""

    hook_dict: dict[str, Any]
    axes: dict[str, tuple[str, ...]]
    grids: dict[str, tuple[int, int]]
    grid: tuple[int, int]
    markers: tuple[str, ...]
    keep_prefix: bool
    name = NAME

    @property
    def shared(self) -> Any:
        """The encoder itself, or the one that this one shares all of its parts with."""
        return vars(self).get("lender", self)

    @property
    def points(self) -> Mapping[str, Any]:
        """The hook points that fire."""
        return {_PREFIX + name: point for name, point in self.hook_dict.items()}

    @property
    def every_point(self) -> Mapping[str, Any]:
        """The same: an encoder keeps no hook points that never fire."""
        return self.points

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site with its measured axes.

        Raises:
            CapabilityError: windows or merged positions, which have no labels.
        """
        name = site.at(layer).removeprefix(_PREFIX)
        if name in self.axes:
            return site.holding(self.axes[name])
        self.check_labels(name)
        return site

    def check_labels(self, name: str) -> None:
        raise NotImplementedError

    def grid_at(self, site: Site, layer: int | None = None) -> tuple[int, int]:
        """Rows and columns of a site: a map of a convolution or a stage of Swin has its own."""
        return self.grids.get(site.at(layer).removeprefix(_PREFIX), self.grid)

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> tuple[Label, ...]:
        """Markers (CLS, registers) and patches in reading order, of one picture or crop."""
        rows, cols = self.grid_at(site, layer)
        squares = [Patch(r, c, image, crop) for r in range(rows) for c in range(cols)]
        kept = site.layered or (self.keep_prefix and site.name == "features")
        if not kept or site.at(layer).removeprefix(_PREFIX) in self.grids:
            return tuple(squares)
        return (*(Marker(name, i, image, crop) for i, name in enumerate(self.markers)), *squares)
