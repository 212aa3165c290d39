"""A microscope: a static site of every unit of a tower, as OpenAI Microscope was for its models.

    mm.microscope(model, "pictos:held_out:2000", "site")
    mm.microscope(model, data, "site", tower="lm", layer=[3, 4])
    mm.microscope(clip, data, "site", words="labels", formats=formats, visualise=64)

    site/index.html                  opens from a disk; index.html#vision.L3.123 is one unit
    site/work/sweep, work/layers     what the site was made from, to go on from; the site itself
                                     does not need it

Three steps, each of which goes on where it was stopped: a sweep over the data
(`mmlens.explore.unit_activity`), the units of one layer after the other (`unit_cards`), the
pictures. The same question gives the same bytes, interrupted or not. Memory does not grow with the
data: it holds running statistics of all units, and the peaks on at most about 2,000 pictures of two
layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.causal.picture_boxes import seen_box
from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset as named_data
from mmlens.explore.unit_activity import Layer, layers_of, look_at_all, tower_of
from mmlens.explore.unit_cards import LayerCards
from mmlens.explore.unit_probes import Drawer, Formats, checked, format_table, word_table
from mmlens.explore.unit_tables import Tables
from mmlens.methods.word_probe import distinct
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.sweep.bar import Bar
from mmlens.sweep.crew import crew
from mmlens.sweep.sweep_folder import Sweep, alone
from mmlens.values.arguments import count, path
from mmlens.values.errors import CapabilityError, writing
from mmlens.values.labels import Neuron
from mmlens.values.whole_files import remove_leftovers, write_whole
from mmlens.view.microscope_page.site import (
    LayerFiles,
    are_whole,
    picture_path,
    write_layer,
    write_page,
    write_picture,
)

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from mmlens.model.hooked_model import HookedModel

FORMAT = 2
"""Of what lies in `work`; a site of another format is made again."""


@needs("pictures")
def microscope(
    model: HookedModel,
    dataset: Any,
    out: str | Path,
    *,
    tower: str | None = None,
    layer: int | Sequence[int] | None = None,
    k: int = 9,
    words: Sequence[str] | str | None = None,
    formats: Formats | None = None,
    visualise: int = 0,
    top_words: pd.DataFrame | None = None,
    cross_format: pd.DataFrame | None = None,
    drawn: Callable[[Neuron], Image.Image] | None = None,
    chunk: int = 32,
    progress: bool = False,
) -> Path:
    """Make the site, or go on with it; returns its `index.html`.

    Args:
        dataset: `Samples`, or what `mmlens.dataset` takes.
        out: the folder of the site.
        tower: "vision", or "lm" where pictures are positions of a language model; "vision.sae" or
            "sae" for the units of attached dictionaries.
        layer: one, several, or all that have units.
        k: top pictures per unit.
        words: of a word probe of the vision tower: a list, or "labels" for those of the data.
        formats: format -> concept -> pictures, for the cross-format index of every unit.
        visualise: feature visualisations of so many units of each layer, those of the sharpest
            peaks: 64 steps at 64 pixels each, some side by side.
        top_words: a table of a word probe, instead of `words`: neuron, word, value.
        cross_format: a table of a cross-format index, instead of `formats`: neuron, z, and z_low,
            z_high, concept and `z photo` etc. where there are any; of several rows of a unit the
            largest z is shown.
        drawn: a function that makes the feature visualisation of a Neuron, instead of `visualise`;
            it is called once per unit, and not again when the site is made again.
        chunk: pictures whose work an interruption costs.

    Raises:
        SweepError: a picture failed, or the folder holds a site of something else.
        AddressError, CapabilityError: no such tower or layer, or no pictures get there.
    """
    k, chunk, folder = count(k, "k"), count(chunk, "chunk"), path(out, "out")
    samples, name = named_data(dataset), tower_of(model, tower)
    tables = Tables(top_words, cross_format, drawn, folder)
    tables.check()
    _check_asked(name, words, formats, count(visualise, "visualise", least=0))
    wanted = [layer] if isinstance(layer, int) else layer
    shown = layers_of(model, name, wanted, samples[0])
    work = folder / "work"
    done = look_at_all(
        model, samples, name, shown, work / "sweep", k=k, chunk=chunk, progress=progress
    )
    if crew().rank:  # the first process makes the site
        return folder / "index.html"
    with alone(folder):
        remove_leftovers(folder)
        made = LayerCards(model, name, shown, done, samples, work, tables)
        made = replace(made, tables=_probed(made, words, formats, visualise))
        stamp = _stamp(done, made)
        files = _layers(folder, work, made, stamp, progress)
        _pictures(model, folder, samples, made.pictures(), progress)
        kinds = {"lm": "language model", "sae": "dictionaries of the language model"}
        title = f"{model.name}, {kinds.get(name, f'{name} tower')}"
        return write_page(
            folder, title=title, lead=_lead(shown, samples), layers=files,
            labels=made.labels.names, facts=made.facts(), stamp=stamp,
            about={**_plan(done), **about(model)},
        )  # fmt: skip


def _check_asked(tower: str, words: Any, formats: Any, visualise: int) -> None:
    """Refuse what can't be made, before the sweep.

    Raises:
        CapabilityError: probes of another tower than vision. ArgumentError: other formats or words.
    """
    if tower != "vision" and (words is not None or formats is not None or visualise):
        raise CapabilityError(
            f"words=, formats= and visualise= are asked of a vision tower, and this site is of"
            f" {tower!r}: leave them out, or write tower='vision'."
        )
    if formats is not None:
        checked(formats)
    if words is not None and not (isinstance(words, str) and words == "labels"):
        distinct(words)


def _probed(made: LayerCards, words: Any, formats: Any, visualise: int) -> Tables:
    """The tables of the site, with those that are made for it."""
    tables, of = made.tables, json.dumps(made.done.manifest, sort_keys=True, default=str)
    if words is not None and tables.words is None:
        own = isinstance(words, str) and words == "labels"
        known = list(made.labels.names) if own else distinct(words)
        if known:
            table = word_table(made.model, made.layers, known, made.work, of)
            tables = replace(tables, words=table)
    if formats is not None and tables.formats is None:
        table = format_table(made.model, made.layers, formats, made.work, of)
        tables = replace(tables, formats=table)
    if visualise and tables.drawn is None:
        layers = {layer.number: layer for layer in made.layers}
        tables = replace(tables, drawn=Drawer(made.model, layers, visualise))
    return tables


def _stamp(done: Sweep, made: LayerCards) -> str:
    """Everything that the shards depend on, as a short hash."""
    told = json.dumps([FORMAT, done.manifest, made.tables.digest()], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _layers(
    folder: Path, work: Path, made: LayerCards, stamp: str, progress: bool
) -> list[LayerFiles]:
    """The shards of all layers; those that are there whole are not made again."""
    out = []
    with Bar(len(made.layers), progress, "layers") as bar:
        for layer in made.layers:
            key = layer.name(made.tower)
            marker = work / "layers" / f"{key}.json"
            found = _finished(folder, marker, stamp)
            if found is None:
                cards = made.cards(layer)
                found = write_layer(
                    folder, key, layer.number, layer.site, made.grid(layer), cards, stamp
                )
                with writing(marker):
                    marker.parent.mkdir(parents=True, exist_ok=True)
                write_whole(marker, json.dumps({"of": stamp, **vars(found)}, indent=1))
            out.append(found)
            bar.step()
    return out


def _finished(folder: Path, marker: Path, stamp: str) -> LayerFiles | None:
    try:
        told = json.loads(marker.read_text(encoding="utf-8"))
        if told.pop("of") != stamp or not are_whole(folder, told["files"]):
            return None
        grid = told.pop("grid")
        return LayerFiles(**told, grid=None if grid is None else (grid[0], grid[1]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _pictures(
    model: HookedModel, folder: Path, samples: Samples, needed: Sequence[int], progress: bool
) -> None:
    """The pictures that are among the first of some unit, by their numbers in the data."""
    with Bar(len(needed), progress, "pictures") as bar:
        for number in needed:
            place = folder / picture_path(number)
            if not place.is_file():
                picture = samples[number].image
                write_picture(place, picture, seen_box(model, *picture.size))
            bar.step()


def _plan(done: Sweep) -> Mapping[str, Any]:
    """What the site was made from, for its foot."""
    data, options = done.manifest["data"], done.manifest["options"]
    sites = ", ".join(options["sites"])
    return {
        "data": data["name"],
        "pictures": data["samples"],
        "data_sha256": data["hash"],
        "activations_at": f"{sites}, at the patches of each picture",
        "peaks_kept": f"{options['share']:.3g} of the pictures, chosen by their ids",
        "weights_sha256": done.manifest["model"]["weights"],
    }


def _lead(layers: Sequence[Layer], samples: Samples) -> str:
    n = sum(one.units for one in layers)
    many = f"{len(layers)} layers" if len(layers) > 1 else f"layer {layers[0].number}"
    return f"{n:,} units of {many}, on {len(samples):,} pictures: {samples.name}."
