"""Two plain counts for worlds without a large pretrained model, under names of their own.

`word_overlap_f1` compares words with words, `world_score` words with the truth of a scene. They
answer the questions that BERTScore and CLIPScore are asked, and are neither: their values must not
be compared with published ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from mmlens.metrics.hallucination import objects_of
from mmlens.metrics.ptb import words_beside
from mmlens.metrics.result import MetricError, MetricResult, check_pairs, check_references, mean
from mmlens.metrics.vocabulary import Vocabulary, pictos_vocabulary
from mmlens.values.arguments import instance


def word_overlap_f1(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, over: str = "best"
) -> MetricResult:
    """F1 of the words that candidate and reference share, [item] in [0, 1], and the mean.

    Words are counted as often as they occur, without regard to order.

    Args:
        candidates: one text per item; a list of words joined by ", " will do.
        references: one or more texts per item.
        over: "best" or "mean" of an item's references.

    Raises:
        MetricError: no candidates, as many references are not given, or an item has none.
    """
    combine = combined("word_overlap_f1", over)
    check_references("word_overlap_f1", candidates, references)
    items = []
    for words, texts in words_beside(candidates, references):
        own, others = Counter(words), [Counter(other) for other in texts]
        # F1 = 2 shared / (words of one + words of the other)
        items.append(
            combine([2 * (own & o).total() / max(1, own.total() + o.total()) for o in others])
        )
    settings = {"over": over, "tokens": "ptb"}
    return MetricResult("word overlap F1", mean(items), tuple(items), settings)


def world_score(
    candidates: Sequence[str],
    references: Sequence[Collection[str]],
    vocabulary: Vocabulary | None = None,
) -> MetricResult:
    """The share of a text's known names that are in the scene, [item] in [0, 1], and the mean.

    Each object counts once, however often the text names it. A text without a known name scores 0.

    Args:
        candidates: one text per item.
        references: the objects of each item's scene, by any name of the vocabulary.
        vocabulary: which words are known; by default the bundled world's.

    Raises:
        MetricError: no candidates, lists of different lengths, an unknown object.
    """
    check_pairs("world_score", candidates, references, "lists of objects")
    words = vocabulary if vocabulary is not None else pictos_vocabulary()
    instance(words, "vocabulary", Vocabulary, "pictos_vocabulary() or coco_vocabulary(path)",
             error=MetricError)  # fmt: skip
    items, silent = [], 0
    for i, text in enumerate(candidates):
        true = objects_of("world_score", i, references[i], words)
        said = {name for _, name in words.mentions(text)}
        silent += not said
        items.append(len(said & true) / max(1, len(said)))
    settings = {"vocabulary": words.name, "without_mention": silent}
    return MetricResult("world score", mean(items), tuple(items), settings)


def combined(name: str, over: str) -> Callable[[Sequence[float]], float]:
    """The function that makes one value of an item's several references."""
    ways: dict[str, Callable[[Sequence[float]], float]] = {"best": max, "mean": mean}
    if not isinstance(over, str) or over not in ways:
        raise MetricError(f"{name}: there is no {over!r} of references: write 'best' or 'mean'.")
    return ways[over]
