"""Units of an encoder at the patches of one grid, whatever grids its layers have.

A transformer's layers have one grid. Of an encoder of convolutions the finest grid of at most
`FINEST` rows and columns is shown: finer maps are added up (or their largest value is taken) within
its cells, coarser ones are spread over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.activations import activations_by_layer
from mmlens.model.readouts import unit_site
from mmlens.values.labels import Neuron, Patch
from mmlens.values.maps import as_positions, is_map
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

VISION = "vision"
FINEST = 14


def sites_of(model: Any) -> dict[int, str]:
    """The site of the units of every layer."""
    layers = range(model.towers[VISION].n_layers)
    return {layer: unit_site(model, Neuron(layer, 0, VISION)).name for layer in layers}


def shown_grid(model: Any) -> tuple[int, int]:
    """Rows and columns of the patches that are shown."""
    tower = model.towers[VISION]
    grids = {
        tower.grid_at(unit_site(model, Neuron(layer, 0, VISION)), layer)
        for layer in range(tower.n_layers)
    }
    return max((grid for grid in grids if max(grid) <= FINEST), default=tower.grid)


def shown_patches(model: Any) -> tuple[Patch, ...]:
    """The patches that are shown, in reading order."""
    rows, cols = shown_grid(model)
    return tuple(Patch(row, col) for row in range(rows) for col in range(cols))


def at_patches_and_all(
    model: Any, layer: int, values: Tensor
) -> tuple[Float[Tensor, "unit patch"], Float[Tensor, " unit"]]:
    """A layer's values added up within each patch that is shown, and over all positions."""
    tower, site = model.towers[VISION], unit_site(model, Neuron(layer, 0, VISION))
    axes, grid = tower.site(site, layer).axes, shown_grid(model)
    flat = as_positions(values, axes) if is_map(axes) else values
    row, own = tower.labels(site, layer), tower.grid_at(site, layer)
    at = [place for place, label in enumerate(row) if isinstance(label, Patch)]
    cells = flat[at].T.reshape(1, -1, *own)
    share = own[0] * own[1] / (grid[0] * grid[1])  # the mean over a cell becomes its sum
    return F.adaptive_avg_pool2d(cells, grid)[0].flatten(1) * share, flat.sum(0)


def patch_activity(
    model: Any, photo: Image.Image, neurons: Sequence[Neuron]
) -> Float[Tensor, "neuron patch"]:
    """The activation of each unit at each patch, the largest of the cells within it."""
    kept = _activity(model, photo, sorted({one.layer for one in neurons}))
    return torch.stack([kept[neuron.layer][neuron.unit] for neuron in neurons])


def firing_units(model: Any, photo: Image.Image, k: int) -> pd.DataFrame:
    """The `k` most active units of every patch: patch, rank (from 0), neuron, value."""
    import pandas as pd

    patches = shown_patches(model)
    best: list[list[tuple[float, Neuron]]] = [[] for _ in patches]
    for layer, values in _activity(model, photo, range(model.towers[VISION].n_layers)).items():
        top = values.T.topk(min(k, len(values)))
        for some, its, units in zip(best, top.values.tolist(), top.indices.tolist(), strict=True):
            named = (Neuron(layer, unit, VISION) for unit in units)
            both = [*some, *zip(its, named, strict=True)]
            some[:] = sorted(both, key=lambda row: -row[0])[:k]
    rows = [
        (patch, rank, neuron, value)
        for patch, some in zip(patches, best, strict=True)
        for rank, (value, neuron) in enumerate(some)
    ]
    return pd.DataFrame(rows, columns=["patch", "rank", "neuron", "value"])


def _activity(
    model: Any, photo: Image.Image, layers: Sequence[int]
) -> dict[int, Float[Tensor, "unit patch"]]:
    tower, grid, sites, out = model.towers[VISION], shown_grid(model), sites_of(model), {}
    for name in dict.fromkeys(sites[layer] for layer in layers):
        here = [layer for layer in layers if sites[layer] == name]
        for layer, found in activations_by_layer(model, photo, name, layer=here, pos=Patch).items():
            inner = next(axis for axis in found.axes if axis != "pos")
            values = found.values.movedim(found.axes.index(inner), 0).float().cpu()
            cells = values.reshape(1, len(values), *tower.grid_at(SITES[name], layer))
            out[layer] = F.adaptive_max_pool2d(cells, grid)[0].flatten(1)
    return dict(sorted(out.items()))
