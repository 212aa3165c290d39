"""The vision encoder as a tower of a model: its points, sites and labels under "vision."."""

from __future__ import annotations

from typing import Any

from mmlens.towers.tower import Tapped
from mmlens.values.labels import Label, Marker, Patch
from mmlens.values.sites import Site

NAME = "vision"


class VisionTower(Tapped):
    """The tower interface of a `HookedVision` (`mmlens.towers.tower`)."""

    grids: dict[str, tuple[int, int]]
    grid: tuple[int, int]
    markers: tuple[str, ...]
    keep_prefix: bool
    name = NAME

    @property
    def shared(self) -> Any:
        """The encoder itself, or the one that this one shares all of its parts with."""
        return vars(self).get("lender", self)

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site with its measured axes.

        Raises:
            CapabilityError: windows or merged positions, which have no labels.
        """
        name = self.within(site, layer)
        if name in self.axes:
            return site.holding(self.axes[name])
        self.check_labels(name)
        return site

    def check_labels(self, name: str) -> None:
        raise NotImplementedError

    def grid_at(self, site: Site, layer: int | None = None) -> tuple[int, int]:
        """Rows and columns of a site: a map of a convolution or a stage of Swin has its own."""
        return self.grids.get(self.within(site, layer), self.grid)

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> tuple[Label, ...]:
        """Markers (CLS, registers) and patches in reading order, of one picture or crop."""
        rows, cols = self.grid_at(site, layer)
        squares = [Patch(r, c, image, crop) for r in range(rows) for c in range(cols)]
        kept = site.layered or (self.keep_prefix and site.name == "features")
        if not kept or self.within(site, layer) in self.grids:
            return tuple(squares)
        return (*(Marker(name, i, image, crop) for i, name in enumerate(self.markers)), *squares)
