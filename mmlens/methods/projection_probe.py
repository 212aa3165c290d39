"""Does the projection add anything to what a picture's classes can be read off?

Verma et al. (2024, "Cross-Modal Projection in Multimodal LLMs Doesn't Really Project Visual
Attributes to Textual Space", section 4). Classes are read off the mean of the encoder's features,
and off the mean of the picture's positions in the soft prompt, by a probe of each:

    richness = how often a probe names the class of a picture that it was not fitted on

The paper's probe has six layers, and its pictures two parts; here it is the logistic regression of
`linear_probe`, and each picture is left out once, in one of `folds` parts. Where the projection is
linear and keeps all dimensions, a linear probe can lose nothing to it but what the penalty makes of
another scale: a gap says that directions are small, not that they are gone.

The control is a probe of labels that are shuffled among the pictures: what it reaches is chance.

Positions: all of the picture's, averaged. Path: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.methods.linear_probe import fitted, spread_of
from mmlens.methods.unit_responses import unit_responses
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.values.arguments import SEEDS, count, number, several, text
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Token
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

PLACES = ("features", "soft prompt")


@needs("logits", "pictures", "positions")
def projection_probe(
    model: HookedVLM,
    pictures: Sequence[Any],
    labels: Sequence[str],
    *,
    folds: int = 5,
    l2: float = 0.01,
    seed: int = 0,
) -> pd.DataFrame:
    """Each picture's class, read before and behind the projection by a probe that never saw it.

    Args:
        labels: the class of each picture; at least two different ones.
        folds: into how many parts the pictures are divided, each of which is left out once.
        l2: weight of the penalty on the weights, as in `linear_probe`.

    Returns:
        Columns place ("features", "soft prompt"), arm ("labels", "shuffled"), picture (its number),
        label, said, right (0 or 1); their mean by place and arm is the richness.

    Raises:
        ArgumentError: as many labels as pictures are needed, two classes, and two pictures a fold.
    """
    import pandas as pd

    shown = several(pictures, "pictures")
    named = [text(label, "labels", empty=False) for label in several(labels, "labels")]
    classes = list(dict.fromkeys(named))
    if len(shown) != len(named) or len(classes) < 2:
        raise ArgumentError(
            f"{len(shown)} pictures and {len(named)} labels of {len(classes)} classes: give as many"
            " labels as pictures, and two classes."
        )
    folds = count(folds, "folds", least=2, most=max(2, len(shown) // 2))
    penalty, draw = number(l2, "l2", least=0), torch.Generator()
    draw.manual_seed(count(seed, "seed", least=0, most=SEEDS))
    truth = torch.tensor([classes.index(name) for name in named])
    part = torch.randperm(len(shown), generator=draw) % folds
    mixed = truth[torch.randperm(len(shown), generator=draw)]
    rows = []
    for place, x in zip(PLACES, read_places(model, shown), strict=True):
        for arm, target in (("labels", truth), ("shuffled", mixed)):
            said = left_out(x, target, part, len(classes), penalty)
            rows += [
                (place, arm, at, classes[int(wanted)], classes[int(found)], float(wanted == found))
                for at, (wanted, found) in enumerate(zip(target, said, strict=True))
            ]
    columns = ["place", "arm", "picture", "label", "said", "right"]
    table = pd.DataFrame(rows, columns=columns)
    table.attrs["about"] = about(model, method="projection_probe", folds=folds, l2=penalty)
    return table


def left_out(
    x: Float[Tensor, "picture dim"],
    target: Int[Tensor, " picture"],
    part: Int[Tensor, " picture"],
    n: int,
    l2: float,
) -> Int[Tensor, " picture"]:
    """The class of each picture by a probe fitted on the other parts."""
    said = torch.zeros_like(target)
    for fold in part.unique().tolist():
        out = part == fold
        spread = spread_of(x[~out])
        loss = lambda logits: F.cross_entropy(logits, target[~out])  # noqa: B023, E731
        w, b = fitted(x[~out] / spread, n, loss, l2)
        said[out] = (x[out] / spread @ w.T + b).argmax(-1)
    return said


def read_places(model: HookedVLM, pictures: Sequence[Any]) -> list[Float[Tensor, "picture dim"]]:
    """The mean features of each picture, and its mean vector in the soft prompt."""
    before = unit_responses(model, pictures, site="features", over="mean")
    rows = []
    with torch.no_grad():
        for picture in pictures:
            soft = one(model, picture if isinstance(picture, Prompt) else Prompt(picture))
            seen = [not isinstance(label, Token) for label in soft.labels[0]]
            rows.append(soft.vectors[0, torch.tensor(seen)].float().mean(0).cpu())
    return [before.values.float().cpu(), finite(torch.stack(rows), "the soft prompts")]
