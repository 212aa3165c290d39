"""The sites of a model as a table, collected from its towers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlens.model import hooking
from mmlens.values.errors import CapabilityError
from mmlens.values.sites import MASK, SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel
    from mmlens.values.shown_table import SiteTable

COLUMNS = ("site", "tower", "hook", "axes", "layers", "writable")


def site_table(model: HookedModel) -> SiteTable:
    """One row per site that fires on the model.

    Returns:
        Columns site, tower, hook (with `{layer}`), axes (a tuple, those of the first layer), layers
        (a tuple of those that have the site), writable (whether an edit acts there). All rows are
        displayed, tuples as words.
    """
    from mmlens.values.shown_table import SiteTable

    known = set(hooking.points(model))
    rows: list[tuple[Any, ...]] = []
    for name, site in SITES.items():
        tower = model.towers.get(site.tower)
        if tower is None:
            continue
        every = range(tower.n_layers) if site.layered else [None]
        layers = [at for at in every if site.at(at) in known]
        layers = list(hooking.layers(model, site)) if site == MASK else layers
        try:
            axes = tower.site(site, layers[0]).axes if layers else ()
        except CapabilityError:
            axes = ()  # hooks only: its axes have no labels
        if layers:
            writable = hooking.written(model, site)
            shown = tuple(layers) if site.layered else ()
            rows.append((name, site.tower, site.point, axes, shown, writable))
    return SiteTable(rows, columns=list(COLUMNS))
