"""Ways of decoding as arms of a study: by name, so that a sweep can record them.

    "noise"     a contrast with the picture in noise      VCD (Leng et al. 2023)
    "words"     a contrast with the words alone           the second part of PAI (Liu et al. 2024)
    "trust"     a penalty on over-trust                   after OPERA (Huang et al. 2024)

Each has its paper's numbers. A function (model, prompt) -> options of `model.generate` is one of
the caller's own, for a study in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mmlens.causal.corrupters import diffusion_noise
from mmlens.methods.contrastive_decoding import contrast
from mmlens.methods.trust_penalty import trust_penalty
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import function, shown
from mmlens.values.errors import nearest
from mmlens.values.prompt import Prompt
from mmlens.values.written import written

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Decoder = Callable[..., Mapping[str, Any]]
"""(model, prompt) -> options of `model.generate`"""


def against_noise(model: HookedVLM, prompt: Prompt) -> Mapping[str, Any]:
    """VCD: alpha 1, beta 0.1, step 500 of the diffusion."""
    noise = diffusion_noise(500)
    noised = prompt.with_pictures([noise(picture) for picture in prompt.pictures])
    return {"logits_processor": contrast(model, noised, alpha=1.0, beta=0.1)}


def against_words(model: HookedVLM, prompt: Prompt) -> Mapping[str, Any]:
    """PAI's guidance: gamma 1.1, by the model without its edits, which may name patches."""
    plain = copy.copy(model)
    plain.edits = ()
    return {"logits_processor": contrast(plain, prompt.text, alpha=0.1, beta=0.1)}


def without_trust(model: HookedVLM, prompt: Prompt) -> Mapping[str, Any]:
    """The penalty on over-trust: alpha 1, scale 50, 5 candidates, the last layer."""
    return {"logits_processor": trust_penalty(model, prompt)}


DECODERS: dict[str, Decoder] = {
    "noise": against_noise,
    "words": against_words,
    "trust": without_trust,
}


def decoder(given: Any) -> Any:
    """The decoder of a name; a function is one itself, None is plain greedy decoding.

    Raises:
        ExperimentError: there is no decoder of this name.
    """
    if callable(given):
        write = "a function of (model, prompt) that returns options of model.generate"
        return function(given, "decode", write, takes=2, error=ExperimentError)
    if given is None:
        return None
    if not isinstance(given, str) or given not in DECODERS:
        raise ExperimentError(f"There is no decoder {given!r}: {nearest(str(given), DECODERS)}")
    return DECODERS[given]


OWN = ("max_new_tokens", "stop", "return_type")
"""Options of `model.generate` that the study gives itself."""


def options_of(decode: Any, model: HookedVLM, prompt: Prompt) -> dict[str, Any]:
    """What a decoder gives `model.generate` for one picture; None gives nothing.

    Raises:
        ExperimentError: it returns no options, or those that the study gives itself.
    """
    found = decode(model, prompt) if decode is not None else {}
    if not isinstance(found, Mapping) or (set(found) & set(OWN)):
        raise ExperimentError(
            f"The decoder {written(decode)!r} returns {shown(found)}:"
            " return options of model.generate, {'logits_processor': ...}, but for"
            f" {', '.join(OWN)}, which the study gives."
        )
    return dict(found)
