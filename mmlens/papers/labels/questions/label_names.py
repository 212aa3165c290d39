"""Which things does a model name, by labels read one by one, and by its caption?

1. The `k` most probable labels after a prompt (`mmlens.next_labels`), each read without the others.
2. The model's greedy caption, after a prompt of its own.
3. The things that either names, by a vocabulary, each once, in the order in which they are named.

Positions: the last, and those that are generated. Path: the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.next_labels import next_labels
from mmlens.model.text_end import SENTENCE
from mmlens.papers.hallucination.questions.said_things import UNKNOWN, things_of, vocabulary_of
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("arm", "named", "there", "text")
LABELS, CAPTION = "labels", "caption"
LABEL_PROMPT = "A picture of a"


def named_things(
    model: HookedVLM,
    sample: Sample,
    *,
    k: int = 10,
    label_prompt: str = LABEL_PROMPT,
    prompt: str = PROMPT,
    vocabulary: Mapping[str, Any] | None = None,
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """What the labels and the caption of a picture name: a row for each of the two.

    Args:
        k: how many first tokens are followed.
        label_prompt: the words in front of a label. prompt: those in front of the caption.
        vocabulary: as in `said_things`.
        max_new_tokens: of the caption.

    Returns:
        arm ("labels", "caption"), named and there (names as JSON: those that are named, in their
        order, and those that the picture has), text (the labels or the caption), skipped, options.
    """
    given = dict(locals())
    words = vocabulary_of(vocabulary)
    asked = Asked.from_arguments(given, COLUMNS, vocabulary=words.name)
    true = things_of(sample, words, captions=False)
    if not true:
        return asked.skipped(UNKNOWN)
    labels = next_labels(model, Prompt(sample.image, label_prompt), k)["label"].tolist()
    caption = model.generate(Prompt(sample.image, prompt), max_new_tokens, stop=SENTENCE)
    things = json.dumps(sorted(true))
    rows = []
    for arm, texts in ((LABELS, labels), (CAPTION, [caption])):
        names = [thing for one in texts for _, thing in words.mentions(str(one))]
        named = json.dumps(list(dict.fromkeys(names)))
        rows.append((arm, named, things, ", ".join(map(str, texts)) if arm == LABELS else caption))
    return asked.answered(rows)
