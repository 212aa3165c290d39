"""The mean vectors of one picture, before and behind the projection.

Positions: all of the picture's, averaged. Path: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.datasets.sample import Sample
from mmlens.methods.projection_probe import PLACES, read_places
from mmlens.values.arguments import text
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

NAMES = dict(zip(PLACES, ("features", "soft_prompt"), strict=True))
"""The places, and what their Scores are called in a sweep."""


def mean_vectors(model: HookedVLM, sample: Sample, *, prompt: str = "") -> dict[str, Scores]:
    """Scores(dim) of each place: the mean over the picture's positions.

    Args:
        prompt: the words after the picture; no vector in front of the language model hangs on them.
    """
    asked = Prompt(sample.image, text(prompt, "prompt"))
    found = read_places(model, [asked])
    return {name: Scores(one[0], ("dim",), {}) for name, one in zip(NAMES.values(), found,
                                                                    strict=True)}  # fmt: skip
