"""Metrics of patching: functions of the last position's logits, made for a model.

    logit(model, " dog")                        the word's logit
    logit_difference(model, " dog", " cat")     ... less that of another word
    probability(model, " dog")                  between 0 and 1
    rank(model, " dog")                         how many tokens are more probable: 0 is the top
    kl(model, prompt)                           KL(predictions after `prompt` || predictions now)

Each maps Float[..., d_vocab] to Float[...]. Any function of that kind is a metric; gradients (for
attribution patching) need one that is differentiable, which `rank` is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capabilities import needs
from mmlens.model.targets import one
from mmlens.towers.language.tokenization import id_of

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Measure = Callable[[torch.Tensor], torch.Tensor]


@needs("logits")
def logit(model: HookedVLM, word: str | int) -> Measure:
    """The logit of a word of one token (or of an id)."""
    token = id_of(model.lm, word)
    return lambda logits: logits[..., token]


@needs("logits")
def logit_difference(model: HookedVLM, word: str | int, other: str | int) -> Measure:
    """The logit of a word minus that of another."""
    token, rival = id_of(model.lm, word), id_of(model.lm, other)
    return lambda logits: logits[..., token] - logits[..., rival]


@needs("logits")
def probability(model: HookedVLM, word: str | int) -> Measure:
    """The probability of a word."""
    token = id_of(model.lm, word)
    return lambda logits: logits.float().softmax(-1)[..., token]


@needs("logits")
def log_probability(model: HookedVLM, word: str | int) -> Measure:
    """The natural logarithm of the probability of a word."""
    token = id_of(model.lm, word)
    return lambda logits: logits.float().log_softmax(-1)[..., token]


@needs("logits")
def rank(model: HookedVLM, word: str | int) -> Measure:
    """How many tokens are more probable than this one."""
    token = id_of(model.lm, word)
    return lambda logits: (logits > logits[..., [token]]).sum(-1).float()


@needs("logits")
def kl(model: HookedVLM, prompt: Any) -> Measure:
    """KL divergence of the predictions from those after `prompt`, in nats."""
    with torch.no_grad():
        wanted = model(one(model, prompt))[0, -1].float().log_softmax(-1)

    def measure(logits: torch.Tensor) -> torch.Tensor:
        said = logits.float().log_softmax(-1)
        return (wanted.exp() * (wanted - said)).sum(-1)

    return measure
