"""CIDEr-D: agreement with the references in what is rare (Vedantam et al., 2015).

    g_k(s) = count of each k-gram of s * (log N - log max(1, df))       df: items whose references
    CIDEr-D = 10/n sum_k mean over references r of                          have it; N: items
        exp(-(l_c - l_r)^2 / 2 sigma^2) * min(g_k(c), g_k(r)) . g_k(r) / |g_k(c)| |g_k(r)|

as coco-caption computes it: n = 4, sigma = 6, document frequencies from the references given here,
so one item alone scores 0 (everything is in every item), and l is the number of 2-grams. The
corpus value is the mean of the items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import exp, log, sqrt

from mmlens.metrics.precision import LONGEST, ngrams
from mmlens.metrics.ptb import words_beside
from mmlens.metrics.result import MetricError, MetricResult, check_references, mean
from mmlens.values.arguments import count, number

_Weights = list[dict[tuple[str, ...], float]]
"""Of one text: for each order of n-gram, the weight of every n-gram."""


def _weights(
    words: Sequence[str], n: int, items: int, frequency: Counter[tuple[str, ...]]
) -> _Weights:
    vectors: _Weights = [{} for _ in range(n)]
    for gram, times in ngrams(words, n).items():
        rare = log(items) - log(max(1, frequency[gram]))
        vectors[len(gram) - 1][gram] = times * rare
    return vectors


def _norm(vector: dict[tuple[str, ...], float]) -> float:
    return sqrt(sum(weight * weight for weight in vector.values()))


def _agreement(candidate: _Weights, reference: _Weights, apart: int, sigma: float) -> float:
    """The mean over orders of the clipped cosine, less the more the lengths are apart."""
    total = 0.0
    for own, other in zip(candidate, reference, strict=True):
        norms = _norm(own) * _norm(other)
        clipped = sum(min(own[g], other[g]) * other[g] for g in own.keys() & other.keys())
        total += clipped / norms if norms else clipped
    return total / len(candidate) * exp(-(apart**2) / (2 * sigma**2))


def cider_d(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    n: int = 4,
    sigma: float = 6.0,
) -> MetricResult:
    """CIDEr-D of each candidate, [item] in [0, 10], and the mean.

    Args:
        candidates: one text per item.
        references: one or more texts per item; together they are the corpus of the frequencies, so
            a value of one set of items says nothing about another set.
        n: the longest n-gram.
        sigma: width, in words, of the penalty on a difference in length.

    Raises:
        MetricError: no candidates, as many references are not given, or an item has none.

    Source: Vedantam et al. 2015, arXiv:1411.5726; coco-caption (arXiv:1504.00325).
    """
    count(n, "cider_d: n", most=LONGEST, error=MetricError)
    number(sigma, "cider_d: sigma", above=0, error=MetricError)
    check_references("cider_d", candidates, references)
    every = list(words_beside(candidates, references))
    frequency: Counter[tuple[str, ...]] = Counter()
    for _, texts in every:
        frequency.update({gram for words in texts for gram in ngrams(words, n)})
    items = []
    for words, texts in every:
        own = _weights(words, n, len(every), frequency)
        scores = [
            _agreement(
                own,
                _weights(other, n, len(every), frequency),
                max(0, len(words) - 1) - max(0, len(other) - 1),
                sigma,
            )
            for other in texts
        ]
        items.append(10 * mean(scores))
    settings = {"n": n, "sigma": sigma, "documents": len(every), "tokens": "ptb"}
    return MetricResult("CIDEr-D", mean(items), tuple(items), settings | {"after": "coco-caption"})
