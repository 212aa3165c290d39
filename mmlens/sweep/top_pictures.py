"""Top pictures of a neuron: the largest activation at any patch, over a data set.

The neuron's activation after the activation function, at picture positions, as in MMN (Schwettmann
et al. 2023, section 3); a picture counts once, by its strongest patch. Every picture is alone in
its prompt: in a causal model later words do not affect it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mmlens.datasets.sample import Sample
from mmlens.datasets.spec import dataset as named_data
from mmlens.methods.activations import activations
from mmlens.model.capabilities import needs
from mmlens.model.hooked_model import HookedModel
from mmlens.model.readouts import unit_site
from mmlens.sweep.crew import crew
from mmlens.sweep.record import SweepError
from mmlens.sweep.sweeping import sweep
from mmlens.tally import Top
from mmlens.values.addresses import places
from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import LM, MULTIMODAL, TEXT, Neuron, Patch, host_of
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.unit_lists import has_units, units_in

if TYPE_CHECKING:
    import pandas as pd


@needs("one pass")
def top_images(
    model: HookedModel,
    dataset: Any,
    neurons: Any = None,
    k: int = 9,
    *,
    out: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The `k` pictures of largest activation per neuron: neuron, rank, sample, place, value.

    Neurons of the language model, or of another tower (`Neuron(3, 17, "vision")`); of a model of
    vision alone, its own. In a map of a convolution the units are the channels.

    `rank` counts from 0, `sample` is the id, `place` the patch with the strongest activation,
    `value` that activation. Pictures of equal value are in the order of the data.

    Args:
        dataset: `Samples`, or what `mmlens.dataset` takes.
        neurons: a Neuron or several (a list, a Series, a table); a layer or several; all of the
            model when left out (a large model has half a million: keep `out` and read
            `Sweep(out).tallies("activations")`).
        out: keep the sweep in this folder and resume it; needed with several processes.

    Raises:
        AddressError: no such neuron or layer. SweepError: a picture failed; the error names it.
        CapabilityError: neurons of a language model in which pictures are no positions.
    """
    samples, wanted = named_data(dataset), _listed(neurons)
    tower = _tower(model, wanted)
    if host_of(tower) == LM and not model.can("positions"):
        raise CapabilityError(
            f"The pictures of {model.name!r} are no positions, so no patch of them has activations"
            " of the language model: ask about neurons of its encoder, Neuron(1, 5, 'vision')."
        )
    if out is None and crew().world > 1:
        raise SweepError("Several processes need a folder in common: give top_images(out=...).")
    with TemporaryDirectory() if out is None else nullcontext(out) as folder:
        done = sweep(
            picture_activations, model, samples, folder, options=_options(model, wanted, tower),
            tallies={"activations": [Top(k=k)]}, progress=progress,
        )  # fmt: skip
        top: Any = done.tallies("activations")[0]
    table = top.table(ids=samples.ids)
    table["neuron"] = [replace(one, tower=tower) for one in table["neuron"]]
    chosen = {one: at for at, one in enumerate(wanted) if isinstance(one, Neuron)}
    if not chosen:
        return table
    rows = table[table["neuron"].isin(chosen)]
    order = rows["neuron"].map(chosen).argsort(kind="stable")
    return rows.iloc[order].reset_index(drop=True)


def picture_activations(
    model: HookedModel,
    sample: Sample,
    layer: Sequence[int],
    units: Sequence[int] | None = None,
    site: str = "neurons",
) -> dict[str, Scores]:
    """A question for `sweep`: the activations at patches, Scores(layer, pos, unit)."""
    narrow: dict[str, Any] = {"layer": list(layer), "pos": Patch}
    narrow |= {"unit": list(units)} if units is not None else {}
    scores = activations(model, Prompt(sample.image), site, **narrow)
    named = {axis: "unit" if axis == "channel" else axis for axis in scores.axes}
    labels = {named[axis]: there for axis, there in scores.labels.items()}
    found = Scores(scores.values, tuple(named.values()), labels, scores.about)
    return {"activations": found}


def _listed(neurons: Any) -> list[Any]:
    """Neurons, or layers; empty for every layer."""
    if neurons is None:
        return []
    if has_units(neurons):
        return units_in(neurons, "neurons", Neuron)
    several: list[Any] = list(neurons) if isinstance(neurons, Iterable) else [neurons]
    if several and all(isinstance(one, int) for one in several):
        return several
    raise AddressError(
        f"top_images(neurons={shown(neurons)}): give neurons, as Neuron(3, 17), or layers, as 3, or"
        " a list of one of these."
    )


def _tower(model: HookedModel, wanted: Sequence[Any]) -> str:
    """The tower that the neurons are in.

    Raises:
        AddressError: they are in several towers, or in one that reads no pictures.
    """
    towers = {one.tower for one in wanted if isinstance(one, Neuron)}
    if len(towers) > 1:
        raise AddressError(
            f"These neurons are in the towers {', '.join(sorted(towers))}: ask about one tower at a"
            " time."
        )
    tower = towers.pop() if towers else model.reading_tower(None)
    if host_of(tower) not in model.towers or tower in (TEXT, MULTIMODAL):
        raise AddressError(
            f"No picture reaches units of the tower {tower!r} of {model.name!r}: ask about those of"
            " its encoder, as in Neuron(3, 17, 'vision')."
        )
    return tower


def _options(model: HookedModel, wanted: Sequence[Any], tower: str) -> dict[str, Any]:
    """The layers that are read, and of them the units (None: all)."""
    chosen = [one for one in wanted if isinstance(one, Neuron)]
    layers = sorted({one.layer for one in chosen}) if chosen else list(wanted) or None
    units = sorted({one.unit for one in chosen}) or None
    n = model.towers[host_of(tower)].n_layers
    found = places(range(n), layers, "layer")
    site = unit_site(model, Neuron(found[0], 0, tower))
    if units is not None and site.in_lm:
        lm: Any = model.towers[LM]
        lm.units.find(model.name, chosen)
    options = {"layer": found, "units": units}
    return options if tower == LM else {**options, "site": site.name}
