"""Which tokens stand out, and are they those of the thing? (Pang et al. 2024, section 5)

arXiv 2310.12973: a frozen block of a language model is said to "filter information", so that tokens
of informative patches are amplified. How active token t is among the tokens f[1..n] of a picture is
read in two ways, both from features that are centred over the picture's tokens:

    magnitude     a[t] = | f[t] - mean_s f[s] |
    frequency     a[t] = | u[t] - mean_s u[s] |,   u[t, k] = F[t, k] / |F[t, k]|

where F[t] is the Fourier transform of f[t] along its dimensions, so that u are its angles, as
points of the circle: an angle just below pi and one just above -pi are next to each other. Where F
is 0 it has no angle, and u is 0. A token is high if its activity is above a threshold, the same for
all pictures, between the least (0) and the greatest (1) of its picture; what is judged is

    IoU = |high and mask| / |high or mask|

The paper does not print how it scales its threshold. Without differences between tokens none is
high. That a thing's tokens differ from the rest is not yet that anything reads them: the control
is another place of the same pictures, before the block or behind a random one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.values.arguments import instance, number, several, shown
from mmlens.values.errors import ArgumentError, NumericsError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = ("magnitude", "frequency")
TINY = 1e-6
"""A Fourier coefficient that is so much smaller than the largest of its token has no angle, and
activities that differ by so little of the features' size do not differ."""


def token_activity(features: Float[Tensor, "token dim"]) -> Scores:
    """How far each token stands out among those of its picture: Scores(quantity, pos), from 0 on.

    Args:
        features: of one picture's tokens, before or behind a layer.

    Returns:
        quantity is "magnitude" (in the features' unit) and "frequency" (in that of the root of
        `dim`: 0 to 2 sqrt(dim)).

    Raises:
        ArgumentError: no Float[token, dim]. NumericsError: a feature is NaN or infinite.
    """
    x = instance(features, "features", Tensor, "a tensor Float[token, dim]")
    if x.dim() != 2 or not x.numel() or not x.is_floating_point():
        raise ArgumentError(f"features={shown(x)}: give a tensor Float[token, dim].")
    x = x.detach().double().cpu()
    if not bool(x.isfinite().all()):
        raise NumericsError("A feature is NaN or infinite, so that no token stands out.")
    found = torch.fft.fft(x, dim=-1)
    size = found.abs()
    there = size > TINY * size.amax(-1, keepdim=True)
    angles = torch.where(there, found / size.clamp(min=torch.finfo(x.dtype).tiny), 0)
    rows, units = [x, angles], [float(x.norm(dim=-1).max()), x.shape[-1] ** 0.5]
    values = torch.stack([(one - one.mean(0)).abs().pow(2).sum(-1).sqrt() for one in rows])
    least = TINY * torch.tensor(units)[:, None]
    values = torch.where(values > least, values, 0.0)
    return Scores(values.float(), ("quantity", "pos"), {"quantity": QUANTITIES},
                  {"method": "token_activity"})  # fmt: skip


def information_filtering(
    features: Float[Tensor, "token dim"],
    mask: Any,
    threshold: float | Sequence[float] = 0.5,
) -> pd.DataFrame:
    """Whether the tokens that stand out are those under a mask, by quantity and threshold.

    Args:
        features: of one picture's tokens, before or behind a layer.
        mask: Bool[token], the thing's tokens; at least one.
        threshold: one, or several; 0 is the least active token of the picture, 1 the most active.

    Returns:
        quantity ("magnitude", "frequency"), threshold, high (how many tokens), iou (0 to 1).

    Raises:
        ArgumentError: another shape, an empty mask, or a threshold that is not from 0 to below 1.
        NumericsError: a feature is NaN or infinite.
    """
    import pandas as pd

    single = isinstance(threshold, int | float)
    given = [threshold] if single else several(threshold, "threshold")
    steps = [number(one, "threshold", least=0, most=1) for one in given]
    if max(steps) >= 1:
        raise ArgumentError("threshold=1: no token is above the most active one; write less.")
    activity = token_activity(features).values
    listed = isinstance(mask, list | tuple) and all(type(one) is bool for one in mask)
    plain = isinstance(mask, Tensor) or (isinstance(mask, np.ndarray) and mask.dtype == bool)
    under = torch.as_tensor(mask).cpu() if listed or plain else torch.zeros(0)
    if under.dtype != torch.bool or under.shape != activity.shape[1:] or not bool(under.any()):
        raise ArgumentError(
            f"mask={shown(mask)}: give Bool[{activity.shape[1]}], one a token, some of them True."
        )
    low, span = activity.amin(1, keepdim=True), activity.amax(1) - activity.amin(1)
    share = torch.where(span[:, None] > 0, (activity - low) / span[:, None].clamp(min=1e-30), 0.0)
    rows = []
    for name, row in zip(QUANTITIES, share, strict=True):
        for step in steps:
            high = row > step
            met = float((high & under).sum() / (high | under).sum())
            rows.append((name, step, int(high.sum()), met))
    return pd.DataFrame(rows, columns=["quantity", "threshold", "high", "iou"])
