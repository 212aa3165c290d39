"""What is trained: the projection of a bridge, or a dictionary of a model's activations.

`fit` is `mmlens train`: captioned pictures, both ends frozen; `fit_dictionary` is `mmlens
train-sae`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.datasets.caption_pairs import CaptionPair as CaptionPair
    from mmlens.datasets.caption_pairs import DataError as DataError
    from mmlens.datasets.sources import open_pairs as open_pairs
    from mmlens.train.dictionaries.dictionary_figures import (
        dictionary_figures as dictionary_figures,
    )
    from mmlens.train.dictionaries.fit_dictionary import TrainedDictionary as TrainedDictionary
    from mmlens.train.dictionaries.fit_dictionary import fit_dictionary as fit_dictionary
    from mmlens.train.features import cache_features as cache_features
    from mmlens.train.training import TrainedProjection as TrainedProjection
    from mmlens.train.training import fit as fit
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
