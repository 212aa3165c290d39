"""What is trained: a bridge's projection, a dictionary of activations, linears around a block.

`fit` is `mmlens train`: captioned pictures, both ends frozen; `fit_dictionary` is `mmlens
train-sae`; `fit_frozen_block` puts a frozen block of the language model behind the encoder.
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
    from mmlens.train.frozen_block import FrozenBlock as FrozenBlock
    from mmlens.train.frozen_block_fit import TrainedFrozenBlock as TrainedFrozenBlock
    from mmlens.train.frozen_block_fit import fit_frozen_block as fit_frozen_block
    from mmlens.train.training import TrainedProjection as TrainedProjection
    from mmlens.train.training import fit as fit
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
