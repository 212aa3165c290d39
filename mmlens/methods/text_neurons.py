"""T-neurons of NAM: units that write a word, or that are simply strong, on one scale.

Fang et al. (2024, "Towards Neuron Attributions in Multi-Modal Large Language Models", NAM). Where
the word t is about to be said, with a the activations at the last position,

    p[l, n]     = a[l, n] (W_out[l] W_U)[n, t]                  (as `contributions`)
    score[l, n] = max(minmax(p)[l, n], minmax(a)[l, n])         (minmax over the units of a layer)

and scores of several samples are averaged: `text_neurons(model, prompts, of).mean("prompt")`. Each
layer whose units are not all alike has one of score 1, whatever it writes, so that scores compare
units of a layer better than layers; and half of the maximum does not depend on the word: for
another word the same strong units come up. What both halves are is told by `contributions` and
`activations`.

The other half of the paper, I-neurons, asks a model that makes pictures, with a segmenter behind
it, and is not here.

Positions: the last, where the word is said. Path: direct. Axes: (layer, unit), 0 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from mmlens.methods.contributions import PATH, at_word
from mmlens.methods.over_lists import over_lists
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.towers.language.tokenization import id_of
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@needs("logits", "neurons", "unembed")
@over_lists
def text_neurons(
    model: HookedVLM, prompt: Any, of: str | int, *, after: str | None = None
) -> Scores:
    """The larger of what a unit writes towards a word and of how active it is: Scores(layer, unit).

    Args:
        of, after: as in `attribute`; several words give a leading axis `token`.
        prompt: one, or a list of one layout, which gives a leading axis `prompt`.

    Raises:
        TargetError, CapabilityError: as in `contributions`.
    """
    reading, aimed = model.aim(prompt, of, "logit", after)
    active, written = at_word(model, reading, id_of(model.lm, of), [len(reading.labels[0]) - 1])
    active, written = active[:, 0], written[:, 0]
    values = finite(minmax(active * written).maximum(minmax(active)), "the scores of T-neurons")
    told = about(model, method="text_neurons", prompt=reading, of=aimed.token, path=PATH,
                 at="the last position")  # fmt: skip
    return Scores(values, ("layer", "unit"), {"layer": tuple(range(len(values)))}, told)


def minmax(values: Float[Tensor, "*lead unit"]) -> Float[Tensor, "*lead unit"]:
    """Values from the least (0) to the largest (1) of the last axis; 0 if all agree."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return (values - low) / (high - low).clamp(min=1e-12)
