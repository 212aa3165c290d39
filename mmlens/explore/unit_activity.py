"""The activations of every unit of a tower over a data set, in one pass and in little memory.

One sweep reads each picture once. It keeps, whatever the number of pictures,

- running statistics per unit: its top pictures with a small map of each, mean, variance, range;
- the *peaks*, the largest activation of each unit at any patch, of at most `PEAKS` pictures, chosen
  by a hash of their ids: from these come histograms, what the labels of pictures have to do with a
  unit, and which units are active together.

A tower's layers may differ in site, width and grid (convolutions): each is measured on the first
picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.sample import Sample, Samples
from mmlens.methods.activations import activations_by_layer
from mmlens.model import hooking
from mmlens.model.readouts import unit_site
from mmlens.runtime.seeding import seed_of
from mmlens.sweep.sweep_folder import Sweep
from mmlens.sweep.sweeping import sweep
from mmlens.tally import Moments, Tally, Top, TopMaps
from mmlens.values.addresses import places
from mmlens.values.arguments import text
from mmlens.values.errors import AddressError, CapabilityError, nearest
from mmlens.values.labels import LM, Neuron, Patch, host_of
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

PEAKS = 2048
"""Of at most about this many pictures the peaks of all units are kept."""


@dataclass(frozen=True)
class Layer:
    """A layer of a tower as a microscope sees it.

    Attributes:
        number: of the layer, from 0.
        site: where its units are read.
        units: how many.
        grid: (rows, cols) of its positions in a picture; None where they form no one grid.
    """

    number: int
    site: str
    units: int
    grid: tuple[int, int] | None

    def name(self, tower: str) -> str:
        """`vision.L3`, as a Neuron's name begins."""
        return str(Neuron(self.number, 0, tower)).rpartition(".")[0]


def tower_of(model: HookedModel, tower: str | None) -> str:
    """The tower that is looked at: the one asked for, else vision.

    Raises:
        AddressError: no such tower. CapabilityError: no pictures get there.
    """
    name = "vision" if tower is None else text(tower, "tower")
    seen = [one for one in model.towers if one in ("vision", LM)]
    if host_of(name) != name and host_of(name) in seen:  # its dictionaries
        hooking.layers(model, site_of(name))
        seen = [*seen, name]
    if name not in (*model.towers, *seen):
        raise AddressError(f"{model.name!r} has no tower {name!r}: {nearest(name, seen)}")
    if name not in seen or (host_of(name) == LM and not model.can("positions")):
        raise CapabilityError(
            f"The tower {name!r} of {model.name!r} has no positions of pictures, so its units have"
            " no top pictures: write tower='vision'."
        )
    return name


def layers_of(
    model: HookedModel, tower: str, wanted: Sequence[int] | None, sample: Sample
) -> list[Layer]:
    """The layers with units, measured on one picture.

    Args:
        wanted: numbers of layers; None for all that have units.

    Raises:
        AddressError: no such layer. CapabilityError: a layer that was asked for has no units.
    """
    if host_of(tower) != tower:
        every = hooking.layers(model, site_of(tower))
        numbers = [every[at] for at in places(every, wanted, "layer")]
    else:
        numbers = places(range(model.towers[tower].n_layers), wanted, "layer")
    if wanted is None and tower == LM:
        lm: Any = model.towers[LM]
        numbers = [n for n in numbers if lm.units.layers[n].width]
    sites = {number: unit_site(model, Neuron(number, 0, tower)).name for number in numbers}
    found = {n: one for n, one in _read(model, sample, _by_site(sites)).items() if one is not None}
    return [Layer(n, sites[n], len(found[n].of("unit")), _grid(found[n])) for n in numbers]


def look_at_all(
    model: HookedModel,
    samples: Samples,
    tower: str,
    layers: Sequence[Layer],
    folder: Path,
    *,
    k: int,
    chunk: int,
    progress: bool,
) -> Sweep:
    """The sweep, finished; it goes on where it was stopped.

    Args:
        k: top pictures per unit.
        chunk: pictures whose work an interruption costs.
    """
    tallies: dict[str, list[Tally]] = {}
    for one in layers:
        top = Top(("unit",), k) if one.grid is None else TopMaps(("unit",), k, one.grid)
        tallies[f"L{one.number}"] = [top, Moments(("unit",))]
    options = {
        "sites": _by_site({one.number: one.site for one in layers}),
        "share": min(1.0, PEAKS / len(samples)),
    }
    return sweep(
        unit_activity, model, samples, folder, options=options, tallies=tallies, chunk=chunk,
        progress=progress,
    )  # fmt: skip


def unit_activity(
    model: HookedModel, sample: Sample, sites: Mapping[str, Sequence[int]], share: float
) -> dict[str, Any]:
    """A question for `sweep`: `L3` is Scores(unit, pos) of a layer, `P3` its peaks, Scores(unit).

    Args:
        sites: the layers by the site where their units are read.
        share: of the pictures whose peaks are kept, with their labels.
    """
    import pandas as pd

    found = _read(model, sample, sites)
    answers: dict[str, Any] = {f"L{number}": scores for number, scores in found.items()}
    if seed_of(0, sample.id) < share * (1 << 32):
        answers |= {
            f"P{number}": Scores(one.values.amax(1).half().cpu(), ("unit",))
            for number, one in found.items()
        }
        answers["labels"] = pd.DataFrame({"label": [list(sample.names)]})
    return answers


def _by_site(sites: Mapping[int, str]) -> dict[str, list[int]]:
    names = dict.fromkeys(sites.values())
    return {name: [n for n, site in sites.items() if site == name] for name in names}


def _read(
    model: HookedModel, sample: Sample, sites: Mapping[str, Sequence[int]]
) -> dict[int, Scores]:
    """Scores(unit, pos) of every layer at the patches of a picture, alone in its prompt."""
    out: dict[int, Scores] = {}
    for site, numbers in sites.items():
        found = activations_by_layer(
            model, Prompt(sample.image), site, layer=list(numbers), pos=Patch
        )
        for number, scores in found.items():
            inner = next(axis for axis in scores.axes if axis in ("unit", "channel", "dim"))
            at = scores.axes.index(inner)
            values = scores.values.movedim(at, 0).flatten(1)  # crops beside one another
            labels = {"pos": tuple(scores.of("pos"))} if scores.values.ndim == 2 else {}
            out[number] = Scores(values, ("unit", "pos"), labels)
    return out


def _grid(scores: Scores) -> tuple[int, int] | None:
    """Rows and columns, where the patches are those of one grid in reading order."""
    patches = [one for one in scores.of("pos") if isinstance(one, Patch)]
    if len(patches) < scores.shape[1]:
        return None
    rows, cols = (max(getattr(one, axis) for one in patches) + 1 for axis in ("row", "col"))
    grid = [Patch(row, col) for row in range(rows) for col in range(cols)]
    return (rows, cols) if patches == grid else None
