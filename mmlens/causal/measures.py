"""Metrics of patching: functions of what a model answers, made for the model.

    logit(model, " dog")                        the word's logit
    logit_difference(model, " dog", " cat")     ... less that of another word
    probability(model, " dog")                  between 0 and 1
    rank(model, " dog")                         how many tokens are more probable: 0 is the top
    kl(model, prompt)                           KL(predictions after `prompt` || predictions now)

Each maps the last position's logits Float[..., d_vocab] to Float[...]; of a classifier its logits,
where a class is named in place of a word; of a multimodal encoder "match", or a word. Of a dual
encoder they map the unit embedding of a picture (or text) Float[..., d_embed] to its logit with the
text (or picture) that is named, which are probabilities only where each pair has its own (SigLIP).
Any function of that kind is a metric; gradients (for attribution patching) need one that is
differentiable, which `rank` is not. Results keep the name of their metric, which is the name of its
function, and figures say it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capabilities import needs
from mmlens.model.readouts import class_index
from mmlens.towers.language.tokenization import id_of
from mmlens.towers.language.tokenization import word as word_of
from mmlens.values.errors import CapabilityError, TargetError

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

Measure = Callable[[torch.Tensor], torch.Tensor]


@needs("one pass")
def logit(model: HookedModel, word: Any) -> Measure:
    """The logit of a word of one token (or of an id), of a class, or with a text or picture."""
    if model.can("similarity"):
        return _named(_similarity(model, word), f"logit with {_said(model, word)}")
    token = _index(model, word)
    return _named(lambda logits: logits[..., token], f"logit of {_said(model, word)}")


@needs("one pass")
def logit_difference(model: HookedModel, word: Any, other: Any) -> Measure:
    """The logit of a word minus that of another."""
    first, second = logit(model, word), logit(model, other)
    told = f"logit difference {_said(model, word)} − {_said(model, other)}"
    return _named(lambda logits: first(logits) - second(logits), told)


@needs("one pass")
def probability(model: HookedModel, word: Any) -> Measure:
    """The probability of a word."""
    told = f"probability of {_said(model, word)}"
    if model.can("similarity"):
        return _named(_log_sigmoid(model, word, torch.sigmoid), told)
    token = _index(model, word)
    return _named(lambda logits: logits.float().softmax(-1)[..., token], told)


@needs("one pass")
def log_probability(model: HookedModel, word: Any) -> Measure:
    """The natural logarithm of the probability of a word."""
    told = f"log probability of {_said(model, word)}"
    if model.can("similarity"):
        return _named(_log_sigmoid(model, word, torch.nn.functional.logsigmoid), told)
    token = _index(model, word)
    return _named(lambda logits: logits.float().log_softmax(-1)[..., token], told)


@needs("one pass")
def rank(model: HookedModel, word: Any) -> Measure:
    """How many tokens are more probable than this one."""
    token = _index(model, word)
    told = f"rank of {_said(model, word)}"
    return _named(lambda logits: (logits > logits[..., [token]]).sum(-1).float(), told)


@needs("one pass")
def kl(model: HookedModel, prompt: Any) -> Measure:
    """KL divergence of the predictions from those after `prompt`, in nats."""
    if not any(map(model.can, ("logits", "classes", "pairs"))):
        raise _no_distribution(model)
    with torch.no_grad():
        answer = model.side_by_side(model.one(prompt), 1)[0]
    wanted = answer.float().log_softmax(-1)

    def measure(logits: torch.Tensor) -> torch.Tensor:
        said = logits.float().log_softmax(-1)
        return (wanted.exp() * (wanted - said)).sum(-1)

    return _named(measure, "KL divergence from the predictions before")


def name_of(metric: Any) -> str:
    """What a metric measures, by the name of its function; "" of one without a name."""
    named = str(getattr(metric, "__name__", ""))
    return "" if named in ("<lambda>", "metric", "measure") else named.replace("_", " ")


def _named(measure: Measure, name: str) -> Measure:
    measure.__name__ = name
    return measure


def _said(model: HookedModel, word: Any) -> str:
    """What a metric is about, in quotes: a token by its text, a picture by that it is one."""
    towers: Any = model.towers
    if isinstance(word, str):
        return repr(word)
    if isinstance(word, int) and model.can("logits"):
        return repr(word_of(towers["lm"], word))
    if isinstance(word, int) and model.can("classes"):
        return repr(towers["vision"].class_names[word])
    if isinstance(word, int) and model.can("pairs"):
        both: Any = model
        return repr(both.answer_names[_index(model, word)])
    return "the picture" if model.can("similarity") else repr(str(word))


def _index(model: HookedModel, word: Any) -> int:
    """The number of a token, of a class or of an answer about a pair."""
    towers: Any = model.towers
    if model.can("logits"):
        return id_of(towers["lm"], word)
    if model.can("classes"):
        return class_index(towers["vision"].class_names, word)
    if model.can("pairs"):
        both: Any = model
        return both.answer_index(word)
    raise _no_distribution(model)


def _no_distribution(model: HookedModel) -> CapabilityError:
    return CapabilityError(
        f"{model.name!r} predicts neither tokens nor classes: take patching.metrics.logit of a text"
        " where it compares pictures with texts, or your own function of what it answers."
    )


def _similarity(model: Any, of: Any) -> Measure:
    """The logit of an embedding with a text or a picture."""
    with torch.no_grad():
        embedded = model.side_by_side(model.one(of), 1)[0]

    def measure(embedding: torch.Tensor) -> torch.Tensor:
        if embedding.shape[-1] != len(embedded):
            raise TargetError(
                "This metric reads the embedding of a picture or of a text alone: give a Pair of"
                " two pictures, or of two texts, without the other."
            )
        return model.logits(embedding @ embedded.to(embedding))

    return measure


def _log_sigmoid(model: Any, of: Any, function: Measure) -> Measure:
    """A function of the logit of a pair that has a probability of its own."""
    if not model.sigmoid:
        raise CapabilityError(
            f"A pair has no probability of its own in {model.name!r}, whose softmax goes over"
            " texts: take patching.metrics.logit, or logit_difference of two texts."
        )
    number = _similarity(model, of)
    return lambda embedding: function(number(embedding).float())
