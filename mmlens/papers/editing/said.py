"""What is said after weights were changed, how large the change is, and which models refuse it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.output_rows import add_to_rows, check_rows
from mmlens.model.capabilities import require
from mmlens.papers.editing.groups import NamedPicture
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import Neuron

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


def says(model: HookedVLM, soft: Any, token: int) -> float:
    """1 where a token leads at the end of a prompt, 0 elsewhere."""
    with torch.no_grad():
        return float(int(model.run(soft)[0, -1, : model.lm.n_words].argmax()) == token)


def keep_their_words(
    model: HookedVLM, changed: HookedVLM, others: tuple[NamedPicture, ...], prompt: str
) -> list[float]:
    """Of each other thing, whether its word is said after a change; prompts are those of before."""
    return [says(changed, one.soft(model, prompt), one.token) for one in others]


def moved(model: HookedVLM, changed: HookedVLM) -> float:
    """The length of the change of all W_out over the length of all W_out."""
    gap = whole = 0.0
    for layer in range(model.cfg.n_layers):
        one, other = (each.lm.units.written(layer).detach().double() for each in (model, changed))
        gap += float((other - one).square().sum())
        whole += float(one.square().sum())
    return (gap / whole) ** 0.5


def refusal(model: HookedVLM) -> str:
    """Why the weights of a model cannot be rewritten, in a sentence; empty where they can."""
    try:
        require(model, "logits", "neurons", "unembed")
        check_rows(model, [Neuron(layer, 0) for layer in range(model.cfg.n_layers)])
        tried = copy.deepcopy(model)
        for layer in range(model.cfg.n_layers):
            add_to_rows(tried, layer, [0], tried.lm.units.written(layer, [0]))
    except (CapabilityError, AddressError) as error:
        return str(error)
    return ""


@contextmanager
def edits_that_fail() -> Iterator[None]:
    """An edit that does not hold is a number of this study, and no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="After ", category=UserWarning)
        yield
