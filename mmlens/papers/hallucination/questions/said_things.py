"""What a caption names, whether it is there, and how sure the picture's own positions are of it.

1. The model's greedy caption; its mentions of things by a vocabulary, singular or plural.
2. A mention is there if the picture's annotation has the thing, or (`captions=True`, as CHAIR does
   on COCO) one of the captions that people wrote (Rohrbach et al. 2018).
3. Internal confidence of a named thing (Jiang et al. 2024): the largest probability that the
   logit lens reads in any layer at any position of the picture, of any token of its name,

       c = max_{layer, patch, t in name} softmax(unembed(norm(resid_post[layer, patch])))[t]

   It is read before anything is said. The authors' program leaves the norm out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.logit_lens import logit_lens
from mmlens.metrics.vocabulary import Vocabulary, pictos_vocabulary
from mmlens.model.text_end import SENTENCE
from mmlens.papers.hallucination.decoders import Decoder, decoder, options_of
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.tables import ExperimentError
from mmlens.towers.language.tokenization import follow
from mmlens.values.arguments import flag, instance, shown
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt
from mmlens.values.written import written

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("caption", "mention", "thing", "there", "confidence", "things", "recalled")
UNKNOWN = "nothing is known of what the picture shows"


def said_things(
    model: HookedVLM,
    sample: Sample,
    *,
    prompt: str = PROMPT,
    vocabulary: Mapping[str, Any] | None = None,
    captions: bool = False,
    confidence: bool = True,
    decode: str | Decoder | None = None,
    sentence: bool = True,
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The mentions of a picture's caption, each with whether it is there: a row a mention.

    Args:
        prompt: the words after the picture.
        vocabulary: {"name": ..., "objects": {phrase: object}}, as of a `Vocabulary`; None: the
            bundled world's.
        captions: whether what people's captions mention counts as being there.
        confidence: whether the internal confidence is read; it takes a second pass, and pictures
            among the positions (otherwise it is left out).
        decode: how the caption is decoded, a name of `decoders.DECODERS`; None: greedily.
        sentence: whether the caption ends with its first sentence or line.

    Returns:
        caption, mention (the words), thing (its name; of a caption without a mention one row with
        None), there, confidence, things (how many different ones the picture has), recalled (how
        many of them the caption names), skipped, options.
    """
    given = dict(locals())
    words, how = vocabulary_of(vocabulary), decoder(decode)
    told = written(decode) if callable(decode) else decode
    asked = Asked.from_arguments(given, COLUMNS, vocabulary=words.name, decode=told)
    flag(confidence, "confidence", error=ExperimentError)
    flag(sentence, "sentence", error=ExperimentError)
    true = things_of(sample, words, captions)
    if not true:
        return asked.skipped(UNKNOWN)
    seen = Prompt(sample.image, prompt)
    stop = SENTENCE if sentence else None
    caption = model.generate(seen, max_new_tokens, stop=stop, **options_of(how, model, seen))
    mentions = words.mentions(caption)
    sure: dict[str, float] = {}
    if confidence and mentions and model.can("positions"):
        sure = confidences(model, seen, [thing for _, thing in mentions])
    counts = len(true), len(true & {thing for _, thing in mentions})
    rows = [(caption, mention, thing, thing in true, sure.get(thing), *counts)
            for mention, thing in mentions]  # fmt: skip
    return asked.answered(rows or [(caption, None, None, None, None, *counts)])


def vocabulary_of(given: Any) -> Vocabulary:
    """A vocabulary from its name and phrases; None is that of the bundled world.

    Raises:
        ExperimentError: neither.
    """
    if given is None:
        return pictos_vocabulary()
    if isinstance(given, Vocabulary):
        return given
    if not isinstance(given, Mapping) or set(given) != {"name", "objects"}:
        raise ExperimentError(
            f"vocabulary={shown(given)}: write {{'name': ..., 'objects': {{phrase: object}}}}."
        )
    objects = instance(given["objects"], "vocabulary['objects']", Mapping, "{phrase: object}",
                       error=ExperimentError)  # fmt: skip
    return Vocabulary(str(given["name"]), dict(objects))


def plain(words: Vocabulary) -> dict[str, Any]:
    """A vocabulary as numbers and words, which a sweep records."""
    return json.loads(json.dumps({"name": words.name, "objects": dict(words.objects)}))


def things_of(sample: Sample, words: Vocabulary, captions: bool) -> set[str]:
    """What a picture shows, in names of the vocabulary.

    Raises:
        MetricError: a thing of the picture is not in the vocabulary.
    """
    there = {words.named(name) for name in sample.names}
    for text in sample.captions if captions else ():
        there |= {name for _, name in words.mentions(text)}
    return there


def confidences(model: HookedVLM, seen: Prompt, things: list[str]) -> dict[str, float]:
    """The internal confidence of each of these names at the picture's positions."""
    pieces = {thing: follow(model.tokenizer, f" {thing}") for thing in dict.fromkeys(things)}
    tokens = list(dict.fromkeys(token for some in pieces.values() for token in some))
    lens: Any = logit_lens(model, seen, tokens, pos=Patch)
    found = dict(zip(tokens, lens.values.amax((0, 1)).tolist(), strict=True))
    return {thing: max(found[token] for token in some) for thing, some in pieces.items()}
