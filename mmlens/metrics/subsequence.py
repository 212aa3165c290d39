"""ROUGE-L: the longest common subsequence of a candidate and its references (Lin, 2004).

    P = max over references of LCS / words of the candidate
    R = max over references of LCS / words of the reference
    ROUGE-L = (1 + b^2) P R / (R + b^2 P),    b = 1.2

as coco-caption computes it: P and R may come from different references, and b is 1.2 (recall
weighs more). The corpus value is the mean of the items.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmlens.metrics.ptb import words_beside
from mmlens.metrics.result import MetricError, MetricResult, check_references, mean
from mmlens.values.arguments import number


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest sequence of words that both have in this order, gaps allowed."""
    row = [0] * (len(other) + 1)
    for word in one:
        corner = 0
        for j, against in enumerate(other, 1):
            above = row[j]
            row[j] = corner + 1 if word == against else max(above, row[j - 1])
            corner = above
    return row[-1]


def _rouge(candidate: Sequence[str], references: Sequence[Sequence[str]], beta: float) -> float:
    lengths = [common_subsequence(candidate, reference) for reference in references]
    precision = max(lengths) / max(1, len(candidate))
    recall = max(
        common / max(1, len(reference))
        for common, reference in zip(lengths, references, strict=True)
    )
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def rouge_l(
    candidates: Sequence[str], references: Sequence[Sequence[str]], beta: float = 1.2
) -> MetricResult:
    """ROUGE-L of each candidate, [item] in [0, 1], and the mean.

    Args:
        candidates: one text per item.
        references: one or more texts per item.
        beta: how much more recall weighs than precision; coco-caption's is 1.2, Lin's F1 is 1.

    Raises:
        MetricError: no candidates, as many references are not given, or an item has none.

    Source: Lin 2004; coco-caption (Chen et al. 2015, arXiv:1504.00325).
    """
    number(beta, "rouge_l: beta", above=0, error=MetricError)
    check_references("rouge_l", candidates, references)
    items = tuple(
        _rouge(words, others, beta) for words, others in words_beside(candidates, references)
    )
    settings = {"beta": beta, "tokens": "ptb", "after": "coco-caption"}
    return MetricResult("ROUGE-L", mean(items), items, settings)
