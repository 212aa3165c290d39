"""The largest activation of every unit on the patches of one picture.

Units of the dictionary, MLP neurons of its layer, coordinates of what it reads, and as many random
directions of that: what a dictionary is judged beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.datasets.sample import Sample
from mmlens.methods.activations import activations
from mmlens.papers.tables import ExperimentError
from mmlens.towers.dictionaries.attached import Attached
from mmlens.towers.dictionaries.hosting import dictionaries_of
from mmlens.values.arguments import count, text
from mmlens.values.labels import LM, Patch
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

UNITS, NEURONS = "units of the dictionary", "MLP neurons"
COORDINATES, RANDOM = "coordinates", "random directions"
KINDS = {UNITS: "units", NEURONS: "neurons", COORDINATES: "coordinates", RANDOM: "random"}
"""The kinds of units, and what their Scores are called in a sweep."""


def unit_peaks(
    model: HookedModel, sample: Sample, *, prompt: str = "", seed: int = 0
) -> dict[str, Scores]:
    """Of each kind, Scores(unit): the largest activation on a patch.

    Args:
        model: with one dictionary attached.
        prompt: the words after the picture.
        seed: of the random directions, which are the same for every picture.

    Raises:
        ExperimentError: no dictionary is attached, or several are.
    """
    held = the_dictionary(model)
    prefix = "" if held.tower == LM else f"{held.tower}."
    asked = Prompt(sample.image, text(prompt, "prompt"))
    here = {"layer": held.layer, "pos": Patch}
    stream = activations(model, asked, held.at, pos=Patch)
    d = stream.shape[-1]
    draw = torch.Generator().manual_seed(count(seed, "seed", least=0))
    random = torch.nn.functional.normalize(torch.randn(d, d, generator=draw), dim=0)
    read = {
        UNITS: activations(model, asked, f"{prefix}sae", **here).values,
        NEURONS: activations(model, asked, f"{prefix}neurons", **here).values,
        COORDINATES: stream.values,
        RANDOM: stream.values @ random.to(stream.values),
    }
    return {
        KINDS[kind]: Scores(values.float().amax(0), ("unit",), {}) for kind, values in read.items()
    }


def the_dictionary(model: Any) -> Attached:
    """The one dictionary that is attached to a model.

    Raises:
        ExperimentError: there is none, or there are several.
    """
    found = [one for tower in model.towers.values() for one in dictionaries_of(tower).values()]
    if len(found) != 1:
        raise ExperimentError(
            f"{model.name} has {len(found)} dictionaries attached: give a model with one, as"
            " model.attach(mm.load_dictionary(folder)) makes it."
        )
    return found[0]
