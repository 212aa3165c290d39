"""Image-based word embeddings: neighbours, analogies and associations of written words.

    V(w) = response(Img(w)) - mean over the words probed of response(Img(w'))

Img(w) is the word as a picture, so a vision encoder alone has such an embedding (Goh et al. 2021).
The mean is what all words share, black letters on white: without taking it out the cosine of any
two words is near 1 ("Terrorism" and "Muslim" .98, with it .52). Every table here has both: `cosine`
with the mean taken out, `raw` without. The words that are probed are the background, so probe many
(the paper: 10,000 common English words).

All functions read Scores(word, unit), as `word_probe` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmlens.methods.word_probe import check_words, distinct, words_of
from mmlens.values.arguments import count, several
from mmlens.values.errors import ArgumentError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd


def word_neighbours(scores: Scores, word: str, k: int = 10) -> pd.DataFrame:
    """The `k` words nearest to a word: rank, word, cosine, raw.

    Raises:
        AddressError: scores of other axes, or a word that was not probed.
    """
    return _nearest(check_words(scores), [(1.0, word)], k)


def word_analogy(
    scores: Scores, like: str, minus: str, plus: str, k: int = 10, *, without: Sequence[int] = ()
) -> pd.DataFrame:
    """The words nearest to V(like) - V(minus) + V(plus), these three left out.

    "King" - "Man" + "Woman" comes near "Queen" (in some cases, says the paper, and once units that
    answer to spelling, such as "-ing", are masked: `without`).

    Args:
        without: units that are not counted.

    Raises:
        AddressError: scores of other axes, or a word that was not probed.
    """
    scores = check_words(scores)
    masked = several(without, "without", least=0)
    if masked:
        width = scores.shape[1]
        out = {count(unit, "without", least=0, most=width - 1) for unit in masked}
        kept = [unit for unit in range(width) if unit not in out]
        if not kept:
            raise ArgumentError("without: all units are left out; keep some.")
        scores = Scores(scores.values[:, kept], scores.axes, scores.labels, scores.about)
    return _nearest(scores, [(1.0, like), (-1.0, minus), (1.0, plus)], k)


def word_association(scores: Scores, words: Sequence[str], others: Sequence[str]) -> pd.DataFrame:
    """How near each word is to each of the others: word, other, cosine, raw.

    Raises:
        AddressError: scores of other axes, or a word that was not probed.
    """
    import pandas as pd

    scores = check_words(scores)
    one, other = distinct(words), distinct(others)
    a, b = list(words_of(scores, one)), list(words_of(scores, other))
    tables = [(v[a] @ v[b].T).flatten().tolist() for v in _vectors(scores)]
    return pd.DataFrame(
        {
            "word": [x for x in one for _ in other],
            "other": [y for _ in one for y in other],
            "cosine": tables[0],
            "raw": tables[1],
        }
    )


def _nearest(scores: Scores, terms: Sequence[tuple[float, str]], k: int) -> pd.DataFrame:
    """The words of largest cosine with a sum of words, which are left out themselves."""
    import pandas as pd

    names = scores.of("word")
    own = list(words_of(scores, [word for _, word in terms]))
    signs = torch.tensor([sign for sign, _ in terms])[:, None]
    cosines = []
    for vectors, plain in zip(_vectors(scores), _plain(scores), strict=True):
        sought = (signs * plain[own]).sum(0)
        cosines.append(vectors @ sought / sought.norm().clamp(min=1e-12))
    ranked = [i for i in cosines[0].argsort(descending=True).tolist() if i not in own]
    top = ranked[: count(k, "k")]
    return pd.DataFrame(
        {
            "rank": range(len(top)),
            "word": [names[i] for i in top],
            "cosine": cosines[0][top].tolist(),
            "raw": cosines[1][top].tolist(),
        }
    )


def _plain(scores: Scores) -> tuple[Tensor, Tensor]:
    """Float[word, unit] with the mean over words taken out, and as it is."""
    values = scores.values.detach().float().cpu()
    return values - values.mean(0), values


def _vectors(scores: Scores) -> tuple[Tensor, Tensor]:
    """Both, as unit vectors."""
    one, other = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in _plain(scores))
    return one, other
