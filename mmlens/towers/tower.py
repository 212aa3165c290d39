"""The interface of every part of a model: hook points, sites and labels, under one name.

    tower.name                            "vision", "projection", "lm", ...
    tower.points["vision.blocks.3.hook_resid_post"]        a HookPoint
    tower.site(SITES["vision.resid_post"], layer=3).axes   ("pos", "dim"), or those of a map

What a tower reports is measured when it is wrapped or first used, never assumed from its class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from mmlens.values.labels import Label
from mmlens.values.sites import Site


class Tower(Protocol):
    """A part of a model that has hook points."""

    @property
    def name(self) -> str:
        """The prefix of its hook names; the language model's have none."""
        ...

    @property
    def n_layers(self) -> int:
        """How many blocks it has."""
        ...

    @property
    def shared(self) -> Any:
        """The module that several models may share and one thread at a time runs."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module whose weights and configuration results depend on."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights."""
        ...

    @property
    def points(self) -> Mapping[str, Any]:
        """The hook points that fire, by their names in the model, in running order."""
        ...

    @property
    def every_point(self) -> Mapping[str, Any]:
        """All hook points, those that never fire as well."""
        ...

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site with its measured axes.

        Raises:
            CapabilityError: its axes cannot be addressed by labels.
        """
        ...

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> Sequence[Label]:
        """The label of each position of a site, for one picture (or one crop of it)."""
        ...


class Placed:
    """The device and the number format of a tower that is one module, read from its weights."""

    module: Any

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return self._weight.dtype

    @property
    def _weight(self) -> torch.Tensor:
        """One of its weights; a projection may have none."""
        return next(self.module.parameters(), torch.empty(0))


class Tapped(Placed):
    """A tower of one module with taps of ours: its hook points, which are those that fire.

    Attributes:
        name: the prefix of hook names.
        hook_dict: the points by their names in the tower. axes: of each, where they were measured.
    """

    name: str
    hook_dict: dict[str, Any]
    axes: dict[str, tuple[str, ...]]

    @property
    def shared(self) -> Any:
        """The tower itself: one thread runs it at a time."""
        return self

    @property
    def points(self) -> Mapping[str, Any]:
        """The hook points that fire."""
        return {f"{self.name}.{name}": point for name, point in self.hook_dict.items()}

    @property
    def every_point(self) -> Mapping[str, Any]:
        """The same: points that never fire are dropped when the tower is measured."""
        return self.points

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site with its measured axes."""
        return site.holding(self.axes.get(self.within(site, layer), site.axes))

    def within(self, site: Site, layer: int | None) -> str:
        """The name of a site's hook point in `hook_dict` and `axes`."""
        return site.at(layer).removeprefix(f"{self.name}.")
