"""BLEU: how many of a candidate's n-grams its references have (Papineni et al., 2002).

    BLEU-n = BP * (p_1 * ... * p_n)^(1/n),    p_k = clipped matches / k-grams of the candidate
    BP = exp(1 - r/c) if c < r, else 1        c: words of the candidate, r: of the closest reference

as coco-caption computes it: an n-gram counts at most as often as in the one reference that has it
most; of two equally close reference lengths the shorter counts; matches get 1e-15 and n-grams 1e-9,
so that a text without any 4-gram match scores nearly 0 and not 0. The corpus value adds up counts
and lengths over all items before it divides: it is not the mean of the items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from mmlens.metrics.ptb import words_beside
from mmlens.metrics.result import MetricError, MetricResult, check_references
from mmlens.values.arguments import count

LONGEST = 100
"""No caption is longer, so no n-gram is."""
TINY, SMALL = 1e-15, 1e-9
"""What coco-caption adds to matches and to n-grams."""


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram of orders 1 to `n` occurs."""
    return Counter(
        tuple(words[i : i + k]) for k in range(1, n + 1) for i in range(len(words) - k + 1)
    )


@dataclass(frozen=True)
class _Counts:
    """What BLEU adds up: matches and n-grams by order, length of candidate and reference."""

    matches: tuple[int, ...]
    ngrams: tuple[int, ...]
    length: int
    reference: int

    def bleu(self) -> float:
        product = 1.0
        for match, total in zip(self.matches, self.ngrams, strict=True):
            product *= (match + TINY) / (total + SMALL)
        ratio = (self.length + TINY) / (self.reference + SMALL)
        return product ** (1 / len(self.matches)) * (exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def _count(candidate: Sequence[str], references: Sequence[Sequence[str]], n: int) -> _Counts:
    most: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        most |= ngrams(reference, n)
    matches = [0] * n
    for gram, times in (ngrams(candidate, n) & most).items():
        matches[len(gram) - 1] += times
    length = len(candidate)
    _, closest = min((abs(len(reference) - length), len(reference)) for reference in references)
    return _Counts(tuple(matches), tuple(max(0, length - k) for k in range(n)), length, closest)


def bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]], n: int = 4
) -> MetricResult:
    """BLEU-`n` of each candidate, [item] in [0, 1], and of the corpus.

    Args:
        candidates: one text per item.
        references: one or more texts per item.
        n: the longest n-gram, 1 to 4 as published.

    Raises:
        MetricError: no candidates, as many references are not given, or an item has none.

    Source: Papineni et al. 2002; coco-caption (Chen et al. 2015, arXiv:1504.00325).
    """
    count(n, "bleu: n", most=LONGEST, error=MetricError)
    check_references("bleu", candidates, references)
    counts = [_count(words, others, n) for words, others in words_beside(candidates, references)]
    total = _Counts(
        tuple(map(sum, zip(*(c.matches for c in counts), strict=True))),
        tuple(map(sum, zip(*(c.ngrams for c in counts), strict=True))),
        sum(c.length for c in counts),
        sum(c.reference for c in counts),
    )
    settings = {"n": n, "reference_length": "closest", "tokens": "ptb", "after": "coco-caption"}
    lengths = {"words": total.length, "reference_words": total.reference}
    return MetricResult(
        f"BLEU-{n}", total.bleu(), tuple(c.bleu() for c in counts), settings | lengths
    )
