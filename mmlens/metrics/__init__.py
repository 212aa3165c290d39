"""How good a caption is: metrics of texts, and of texts with pictures.

    from mmlens import metrics

    said = [model.generate(mm.Prompt(scene.image, "A picture of")) for scene in scenes]
    metrics.cider_d(said, [scene.captions for scene in scenes]).corpus
    metrics.chair(said, [[t.name for t in scene.objects] for scene in scenes],
                  metrics.pictos_vocabulary()).items

Words: `bleu`, `rouge_l` and `cider_d` with the numbers of coco-caption, `chair` against a
vocabulary of objects, and two plain counts with names of their own, `word_overlap_f1` and
`world_score`. With the extra `metrics`: `clip_score` and `bert_score`, by torchmetrics and a
backbone that you name.

Each returns a `MetricResult`: the corpus value, one value per item, and the settings.
METEOR is left out: its published numbers come from a Java program and its paraphrase table, and
the Python versions (nltk's, for one) give other numbers under the same name. SPICE likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.metrics.consensus import cider_d as cider_d
    from mmlens.metrics.counts import word_overlap_f1 as word_overlap_f1
    from mmlens.metrics.counts import world_score as world_score
    from mmlens.metrics.hallucination import chair as chair
    from mmlens.metrics.image_text import clip_score as clip_score
    from mmlens.metrics.precision import bleu as bleu
    from mmlens.metrics.ptb import caption_words as caption_words
    from mmlens.metrics.result import MetricError as MetricError
    from mmlens.metrics.result import MetricResult as MetricResult
    from mmlens.metrics.subsequence import rouge_l as rouge_l
    from mmlens.metrics.token_match import bert_score as bert_score
    from mmlens.metrics.vocabulary import Vocabulary as Vocabulary
    from mmlens.metrics.vocabulary import coco_vocabulary as coco_vocabulary
    from mmlens.metrics.vocabulary import pictos_vocabulary as pictos_vocabulary
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
