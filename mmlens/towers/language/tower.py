"""The language model as a tower of a model: TransformerLens' names, without a prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.towers.tower import Placed
from mmlens.values.labels import LM, Label
from mmlens.values.sites import Site


class LanguageTower(Placed):
    """The tower interface of a `LanguageModel` (`mmlens.towers.tower`)."""

    root: Any
    can: Any
    crossing: Any
    mixtures: Any
    deepstack: Any
    dictionaries: Any
    name = LM

    @property
    def n_layers(self) -> int:
        """How many blocks it has."""
        return int(self.root.cfg.n_layers)

    @property
    def shared(self) -> Any:
        """The TransformerLens model, which holds the hook points."""
        return self.root

    @property
    def module(self) -> Any:
        """The TransformerLens model."""
        return self.root

    @property
    def points(self) -> Mapping[str, Any]:
        """The hook points that fire, by TransformerLens' names, and those of mmlens' own."""
        fires, every = self.can.fires, self.every_point
        own = {name for one in self.dictionaries.values() for name in one.points}
        return {name: point for name, point in every.items() if name in fires or name in own}

    @property
    def every_point(self) -> Mapping[str, Any]:
        """All hook points, those that never fire as well."""
        opened = (self.crossing, self.deepstack, *self.mixtures.values())
        opened = (*opened, *self.dictionaries.values())
        every = (self.root.hook_dict, *(one.points for one in opened if one is not None))
        return {name: point for some in every for name, point in some.items()}

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site unchanged: TransformerLens' axes."""
        return site

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> Sequence[Label]:
        """No labels: a soft prompt labels its own positions."""
        return ()
