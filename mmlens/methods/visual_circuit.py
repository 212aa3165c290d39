"""A circuit by cross-layer attribution: units that feed units that feed an answer, layer by layer.

Rajaram, Chowdhury, Torralba, Andreas and Schwettmann (2024, "Automatic Discovery of Visual
Circuits", arXiv 2404.14349). Between a unit m of one layer and a unit n of the next,

    score(m -> n) = mean over examples of   sum over positions p of  |a_m[p]| |d a_n / d a_m[p]|

where a_n is the sum of n's activations over positions. Behind the last layer stands the seed: a
word, class or similarity, or one unit, whose number takes the place of a_n. From there back, the k
units of each layer with the largest total to the units that were chosen last are kept, and so are
the edges to each of them.

A score has no sign and no path: it counts what a small change would do, through everything between
the two layers, and units that work against each other count twice. The paper prunes: it silences
units and looks at what is left. `patching.ablation_curve(model, prompt, metric, units)` does this
for the units of a circuit, their complement, and others of the same layers.

A table of edges: source, target, score, the layers next to the seed first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.grad_cam import by_position
from mmlens.model import hooking, readouts
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, Target, finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import seed as seed_of
from mmlens.runtime.backward import wide
from mmlens.values.addresses import places
from mmlens.values.arguments import count, several
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron
from mmlens.values.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

COLUMNS = ["source", "target", "score"]
MOST = 1_000
"""Units of a layer: each is a backward pass."""


@needs()
@ordinary()
def visual_circuit(
    model: HookedModel,
    prompts: Any,
    of: Any,
    *,
    k: int = 5,
    layer: Any = None,
    target: str | Number = "logit",
    after: str | None = None,
) -> pd.DataFrame:
    """The units of each layer that most feed those behind them, as edges: source, target, score.

    Args:
        prompts: one example, or a list of a few that show the concept.
        of: the seed: a word, class or text as in `attribute`, whose units are those of the tower
            that reads the prompt; or a Neuron, in whose tower the layers before it are asked.
        k: units kept in each layer.
        layer: some layers only, as in `Scores.sel`; units of neighbouring ones among them are
            joined.
        target, after: as in `attribute`; of a unit, its sum over positions unless said otherwise.

    Raises:
        AddressError: no such layer, or none before the seed.
        SiteError, CapabilityError: the tower has no units. TargetError: as in `attribute`.
    """
    k = count(k, "k", most=MOST)
    many = several(prompts if isinstance(prompts, (list, tuple)) else [prompts], "prompts")
    unit = of if isinstance(of, Neuron) else None
    number = "sum" if unit and target == "logit" else target
    asked = [model.aim(one, of, number, after) for one in many]
    where = (readouts.unit_site(model, unit) if unit
             else readouts.own_site(model, "neurons", many[0]))  # fmt: skip
    chosen = _layers(model, where, layer, unit)
    real = hooking.check_places(model, where, chosen)
    behind: list[Neuron] | None = None
    names: list[Any] = [unit or asked[0][1].token or of]
    rows: list[tuple[Any, Any, float]] = []
    for at in reversed(chosen):
        total = torch.stack([_scores(model, one, real, at, behind) for one in asked]).mean(0)
        finite(total, f"the attribution of layer {at}")
        best = total.sum(0).topk(min(k, total.shape[1])).indices.tolist()
        units = [Neuron(at, one, where.owner) for one in best]
        edges = [(source, end, float(total[row, source.unit]))
                 for source in units for row, end in enumerate(names)]  # fmt: skip
        rows += sorted(edges, key=lambda edge: -edge[2])
        behind, names = units, list(units)
    import pandas as pd

    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["about"] = about(model, method="visual_circuit", of=names_of(of), target=target,
                                 site=where.name, prompts=len(many), k=k)  # fmt: skip
    return table


def names_of(of: Any) -> str:
    """A seed, as provenance tells it."""
    return f"a direction of {len(of)}" if isinstance(of, Tensor) else str(of)


def _layers(model: HookedModel, where: Site, layer: Any, unit: Neuron | None) -> list[int]:
    """The layers whose units are asked for, in running order.

    Raises:
        AddressError: none.
    """
    every = list(hooking.layers(model, where))
    asked = every if layer is None else [every[at] for at in places(every, layer, "layer")]
    found = sorted({at for at in asked if unit is None or at < unit.layer})
    if not found:
        raise AddressError(
            f"There is no layer before {unit} among {asked}: name an earlier layer, or a unit of a"
            " later one."
        )
    return found


def _scores(
    model: HookedModel,
    asked: tuple[Any, Target],
    real: dict[Any, Site],
    layer: int,
    behind: Sequence[Neuron] | None,
) -> Tensor:
    """|a_m| |d a_n / d a_m| of all units m of a layer, for each n behind it: Float[n, unit].

    Args:
        behind: units of a later layer; None for the number of the seed.
    """
    reading, aimed = asked
    start = real[layer].at(layer)
    kept: dict[str, Tensor] = {}

    def begin(tensor: Tensor, hook: Any) -> Tensor:
        kept[hook.name] = tensor.detach().requires_grad_()
        return kept[hook.name]

    def keep(tensor: Tensor, hook: Any) -> None:
        kept[hook.name] = tensor

    later = sorted({one.layer for one in behind or ()})
    hooks = [(start, begin), *((real[at].at(at), keep) for at in later)]
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        if behind is None:
            row = readouts.answers(model, reading, [aimed])[0]
            out, power = seed_of(row, aimed.number)
            numbers = [((row * out.detach()).sum(), power)]
        else:
            model.run(reading)
            numbers = [(_active(kept, real, one), 1.0) for one in behind]
    value = by_position(wide(kept[start].detach()), real[layer].axes).abs()
    found = []
    for number, power in numbers:
        (slope,) = torch.autograd.grad(number, kept[start], retain_graph=True, allow_unused=True)
        moved = torch.zeros_like(value) if slope is None else (
            by_position(wide(slope) / power, real[layer].axes).abs() * value
        )  # fmt: skip
        found.append(moved.sum(0))
    return torch.stack(found)


def _active(kept: dict[str, Tensor], real: dict[Any, Site], unit: Neuron) -> Tensor:
    """The sum of a unit's activations over positions."""
    site = real[unit.layer]
    return by_position(kept[site.at(unit.layer)], site.axes)[:, unit.unit].sum()
