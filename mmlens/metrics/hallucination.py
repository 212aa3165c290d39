"""CHAIR: objects that a caption names and the picture does not have (Rohrbach et al., 2018).

    CHAIR-i = hallucinated mentions / all mentions of objects      (an instance, over the corpus)
    CHAIR-s = captions with a hallucinated mention / all captions  (a sentence)

Both lie in [0, 1], and less is better. A mention counts each time it occurs, as in the authors'
program. In COCO the truth is the annotated objects and those that the human captions mention: give
these captions too. A caption that names nothing hallucinates nothing, so silence scores 0: read
CHAIR together with `mentions` in the settings.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mmlens.metrics.result import (
    MetricError,
    MetricResult,
    check_list,
    check_pairs,
    check_references,
    mean,
)
from mmlens.metrics.vocabulary import Vocabulary
from mmlens.values.arguments import instance


def chair(
    candidates: Sequence[str],
    references: Sequence[Collection[str]],
    vocabulary: Vocabulary,
    *,
    per: str = "instance",
    captions: Sequence[Sequence[str]] | None = None,
) -> MetricResult:
    """CHAIR-i or CHAIR-s of each candidate, [item] in [0, 1], and of the corpus.

    Args:
        candidates: one text per item.
        references: the objects in each item's picture, by any name of the vocabulary; may be none.
        vocabulary: which words name which objects; `coco_vocabulary(path)`, `pictos_vocabulary()`.
        per: "instance" (share of mentions) or "sentence" (whether there is any, 0 or 1).
        captions: true captions per item, whose objects count as being in the picture.

    Returns:
        Items are the shares of each caption, 0 without a mention. The corpus value "per instance"
        divides the sums of mentions, so it is not the mean of the items. `settings` has the counts.

    Raises:
        MetricError: no candidates, lists of different lengths, an unknown object.

    Source: Rohrbach et al. 2018, arXiv:1809.02156.
    """
    if per not in ("instance", "sentence"):
        raise MetricError(f"chair: there is no CHAIR per {per!r}: write 'instance' or 'sentence'.")
    check_pairs("chair", candidates, references, "lists of objects")
    instance(vocabulary, "vocabulary", Vocabulary, "pictos_vocabulary() or coco_vocabulary(path)",
             error=MetricError)  # fmt: skip
    if captions is not None:
        check_references("chair", candidates, captions)
    said = [[name for _, name in vocabulary.mentions(text)] for text in candidates]
    false = []
    for i, names in enumerate(said):
        true = objects_of("chair", i, references[i], vocabulary)
        for text in captions[i] if captions is not None else ():
            true |= {name for _, name in vocabulary.mentions(text)}
        false.append(sum(name not in true for name in names))
    mentions = sum(map(len, said))
    settings = {
        "vocabulary": vocabulary.name,
        "per": per,
        "captions": captions is not None,
        "mentions": mentions,
        "hallucinated": sum(false),
        "without_mention": sum(not names for names in said),
    }
    if per == "sentence":
        items = tuple(float(wrong > 0) for wrong in false)
        return MetricResult("CHAIR-s", mean(items), items, settings)
    items = tuple(wrong / max(1, len(names)) for wrong, names in zip(false, said, strict=True))
    return MetricResult("CHAIR-i", sum(false) / max(1, mentions), items, settings)


def objects_of(metric: str, item: int, names: Collection[str], vocabulary: Vocabulary) -> set[str]:
    """The objects behind the names of one item's ground truth."""
    if isinstance(names, str):
        raise MetricError(
            f"{metric}: the objects of item {item} are one text; write a list, [{names!r}]."
        )
    check_list(metric, item, "objects", names)
    instance(vocabulary, "vocabulary", Vocabulary, "pictos_vocabulary() or coco_vocabulary(path)",
             error=MetricError)  # fmt: skip
    return {vocabulary.named(name) for name in names}
