"""Training the projection of a bridge on captioned pictures, both ends frozen (`mmlens train`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "DataError": "data",
    "Pair": "data",
    "open_pairs": "sources",
    "cache_features": "features",
    "fit": "fit",
    "TrainedProjection": "fit",
}
__all__ = [
    "DataError",
    "Pair",
    "TrainedProjection",
    "cache_features",
    "fit",
    "open_pairs",
]

if TYPE_CHECKING:
    from mmlens.train.data import DataError as DataError
    from mmlens.train.data import Pair as Pair
    from mmlens.train.features import cache_features as cache_features
    from mmlens.train.fit import TrainedProjection as TrainedProjection
    from mmlens.train.fit import fit as fit
    from mmlens.train.sources import open_pairs as open_pairs


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"mmlens.train has no {name!r}: there is {', '.join(__all__)}.")
    value = getattr(importlib.import_module(f"mmlens.train.{_HOME[name]}"), name)
    globals()[name] = value
    return value
