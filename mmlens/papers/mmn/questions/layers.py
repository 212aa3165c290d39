"""E6: in which layers are the neurons that turn pictures into words? (MMN S.6, Fig. S.4)

Of the 100 pairs of highest g[k, c] of every picture, the different units, counted by layer: all of
them and the interpretable ones. The question is `top_units`, as in E1.

"units" is the paper's number: different units over all pictures together. A union is no mean, so it
has no interval; "share" is the share of a picture's own units that lie in the layer, with one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmlens.papers.bootstrap import DRAWS, summarise
from mmlens.papers.mmn.questions.decoded_units import top_units as top_units
from mmlens.papers.tables import finished, used
from mmlens.values.arguments import count
from mmlens.values.labels import Neuron


def summary(
    table: pd.DataFrame, n_layers: int | None = None, *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Units by layer: experiment, arm (all, interpretable), metric, layer, mean, low, high, n, ...

    Args:
        table: of `top_units`, with a column sample.
        n_layers: of the model; by default up to the highest layer in the table.
    """
    rows = used(table, "neuron", "interpretable").drop_duplicates(["sample", "neuron"])
    rows = rows.assign(layer=[Neuron.parse(str(neuron)).layer for neuron in rows["neuron"]])
    if n_layers is not None:
        count(n_layers, "n_layers", least=int(rows["layer"].max()) + 1, most=10_000)
    layers = range(n_layers if n_layers is not None else int(rows["layer"].max()) + 1)
    kinds = {"all": rows, "interpretable": rows[rows["interpretable"].astype(bool)]}
    found = []
    for arm, part in kinds.items():
        by_picture = part.groupby(["sample", "layer"]).size().unstack(fill_value=0)
        share = by_picture.reindex(columns=layers, fill_value=0)
        share = share.div(share.sum(axis=1), axis=0).stack().rename("value").reset_index()
        found.append(share.set_axis(["sample", "layer", "value"], axis=1).assign(arm=arm))
    shares = pd.concat(found, ignore_index=True).assign(metric="share")
    out = summarise(shares, ["arm", "metric", "layer"], draws=draws, seed=seed)
    pictures = rows["sample"].nunique()
    counts = [_counts(arm, part, layers, pictures) for arm, part in kinds.items()]
    whole = pd.concat([out, *counts], ignore_index=True)
    return finished(whole, "E6", table, draws=draws, seed=seed)


def _counts(arm: str, rows: Any, layers: range, pictures: int) -> pd.DataFrame:
    """Different units over all pictures, by layer."""
    counts = rows.drop_duplicates("neuron")["layer"].value_counts().reindex(layers, fill_value=0)
    return pd.DataFrame(
        {
            "arm": arm,
            "metric": "units",
            "layer": list(layers),
            "mean": counts.to_numpy(dtype=float),
            "low": np.nan,
            "high": np.nan,
            "n": pictures,
        }
    )
