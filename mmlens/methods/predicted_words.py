"""Words by their logits, as every lens tells them: named words as Scores, the best of all as rows.

A reading turns logits at one place into the numbers of a few tokens; `told` lays readings of a
grid of places (layers or heads, by positions) side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.towers.language.tokenization import id_of
from mmlens.values.arguments import count, several
from mmlens.values.errors import AddressError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

QUANTITIES = ("prob", "logprob", "logit")
"""The numbers that a lens reads."""
Found = tuple[torch.Tensor, ...]
"""Numbers [place, word], and the ids of the words where these are the best ones."""


@dataclass(frozen=True)
class Words:
    """What is read of logits: some words, or the `k` best of all.

    Attributes:
        ids: of the words; None for the best.
        n_words: logits beyond these belong to no word of the tokenizer.
    """

    ids: list[int] | None
    k: int
    quantity: str
    n_words: int

    def read(self, logits: Float[Tensor, "place d_vocab"]) -> Found:
        """Numbers Float[place, word]; of the best words also their ids."""
        logits = logits.float()
        if self.ids is None:
            read, found = logits[:, : self.n_words].topk(min(self.k, self.n_words))
        else:
            read, found = logits[:, self.ids], None
        if self.quantity != "logit":  # for the tokens that are kept only
            read = read - logits.logsumexp(-1, keepdim=True)
        read = read.exp() if self.quantity == "prob" else read
        return (read,) if found is None else (read, found)


def asked(
    model: HookedVLM, tokens: Sequence[str | int] | str | int | None, k: int, quantity: str
) -> Words:
    """The words that are asked for.

    Raises:
        AddressError: no such quantity. TargetError: a word of several tokens.
    """
    if quantity not in QUANTITIES:
        raise AddressError(
            f"There is no quantity {quantity!r}: write 'prob', 'logprob' or 'logit'."
        )
    k = count(k, "k")
    words = [tokens] if isinstance(tokens, (str, int)) else tokens
    ids = None if words is None else [id_of(model.lm, w) for w in several(words, "tokens")]
    return Words(ids, k, quantity, model.lm.n_words)


def told(
    model: HookedVLM,
    words: Words,
    found: Mapping[int, Found],
    pos: tuple[Any, ...],
    about: dict[str, Any],
    axis: str = "layer",
) -> Scores | pd.DataFrame:
    """Readings of a grid: Scores(axis, pos, token), or a table of these, rank and the number.

    Args:
        found: by the label along `axis`, the readings of its positions.
    """
    if words.ids is None:
        table = _table(model, words.quantity, found, pos, axis)
        table.attrs["about"] = about
        return table
    named = tuple(model.to_string([i]) for i in words.ids)
    values = torch.stack([one[0] for one in found.values()])
    return Scores(
        values, (axis, "pos", "token"), {axis: tuple(found), "pos": pos, "token": named}, about
    )


def _table(
    model: HookedVLM, quantity: str, found: Mapping[int, Found], pos: tuple[Any, ...], axis: str
) -> pd.DataFrame:
    import pandas as pd

    different = {token for one in found.values() for token in one[1].unique().tolist()}
    spelt = {token: model.to_string([token]) for token in different}
    rows = [
        (at, label, rank, spelt[token], value)
        for at, one in found.items()
        for label, values, tokens in zip(pos, one[0].tolist(), one[1].tolist(), strict=True)
        for rank, (value, token) in enumerate(zip(values, tokens, strict=True))
    ]
    return pd.DataFrame(rows, columns=[axis, "pos", "rank", "token", quantity])
