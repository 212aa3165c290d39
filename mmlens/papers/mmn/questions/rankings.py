"""Attribution methods side by side.

Each gives Scores(layer, pos, unit) for the explained token.

    gradient x activation (pre)     z dy/dz before the activation function (MMN eq. 2)
    gradient x activation (post)    a dy/da after it
    integrated gradients            a * integral of dy/da from 0 to a, layer by layer
    activation                      a alone: says nothing of the token
    direct contribution             a (W_out W_U)[c]: what the unit itself writes towards the token
                                    at its position, without a gradient and without later layers
                                    (behind a norm of the MLP: as long as the norm makes it there)
    random                          normal numbers
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from mmlens.methods.activations import activations
from mmlens.methods.contributions import contributions
from mmlens.methods.integrated_gradients import integrated_gradients
from mmlens.papers.mmn.questions.decoded_units import scored
from mmlens.papers.mmn.questions.explained import Explained
from mmlens.papers.tables import ExperimentError
from mmlens.values.errors import nearest
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

METHODS = (
    "gradient x activation (pre)",
    "gradient x activation (post)",
    "integrated gradients",
    "activation",
    "direct contribution",
    "random",
)


def rankings(
    model: HookedVLM,
    seen: Explained,
    random: torch.Generator,
    methods: Sequence[str] = METHODS,
    *,
    target: str = "logit",
    steps: int = 8,
) -> Iterator[tuple[str, Scores]]:
    """Name and Scores(layer, pos, unit) of each method, one after the other.

    Args:
        random: the numbers of the method "random".
        steps: nodes of the integral.

    Raises:
        ExperimentError: no such method.
    """
    for method in methods:
        if not isinstance(method, str) or method not in METHODS:
            raise ExperimentError(f"There is no method {method!r}: {nearest(method, METHODS)}")
    ways: dict[str, Callable[[], Scores]] = {
        METHODS[0]: lambda: scored(model, seen, "pre", target),
        METHODS[1]: lambda: scored(model, seen, "post", target),
        METHODS[2]: lambda: integrated_gradients(
            model, seen.soft, seen.token, after="", target=target, steps=steps
        ),
        METHODS[3]: lambda: activations(model, seen.soft, "neurons"),
        METHODS[4]: lambda: contributions(model, seen.soft, seen.token, after="", pos=None),
        METHODS[5]: lambda: _noise(activations(model, seen.soft, "neurons"), random),
    }
    for method in methods:
        yield method, ways[method]()


def _noise(like: Scores, random: torch.Generator) -> Scores:
    values = torch.randn(like.shape, generator=random)
    return Scores(values, like.axes, like.labels, {**like.about, "method": "random"})
