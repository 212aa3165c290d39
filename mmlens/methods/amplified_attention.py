"""Attention to a picture amplified: PAI (Liu et al. 2024, arXiv:2407.21771).

    more = model.edit(decoding.amplify(mm.Patch, alpha=0.5))        # at every new token
    more.generate(prompt, logits_processor=decoding.contrast(model, "A picture of", alpha=0.1))

    s[head, query, key] -> s + alpha |s|      before the softmax, key in the picture

So the softmax shares out anew what it gives to words and to the picture, whatever sign a score has.
The paper does so for the query that predicts the next token, in the layers behind the first few,
with alpha from 0.2 to 0.6; its second part, a contrast with the words alone, is `contrast`. It is
an Edit at "attn_scores", and where pictures are keys of cross-attention at "cross_attn_scores".
"""

from __future__ import annotations

from typing import Any

import torch

from mmlens.values.arguments import flag, number, spelled
from mmlens.values.edit import Edit
from mmlens.values.labels import Patch


@spelled
def amplify(
    source: Any = Patch,
    destination: Any = -1,
    layer: Any = None,
    head: Any = None,
    *,
    alpha: float = 0.5,
    across: bool = False,
) -> Edit:
    """An Edit that adds `alpha` of their size to the scores of attention to these keys.

    Args:
        source: keys that are attended to more: labels, a type, a list, as in `Scores.sel`.
        destination: queries that do so; -1 is the last position, and each new token.
        layer, head: where; by default everywhere.
        alpha: a share of each score's size; below 0 attends less.
        across: whether the sources are pictures that the model reads by cross-attention; without
            it `model.edit` refuses patches that are no positions.
    """
    by = number(alpha, "alpha")
    layers = list(layer) if isinstance(layer, range) else layer
    site = "cross_attn_scores" if flag(across, "across") else "attn_scores"

    def louder(scores: torch.Tensor) -> torch.Tensor:
        hidden = scores <= torch.finfo(scores.dtype).min / 2  # a key that the mask hides stays so
        return torch.where(hidden, scores, scores + by * scores.abs())

    return Edit(site, louder, key=source, query=destination, layer=layers, head=head)
