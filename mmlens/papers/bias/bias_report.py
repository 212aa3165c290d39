"""`audit_bias`: associations of concepts with groups in a model, as a folder with one page.

OUT/report.html          what was found, how, and what it can't show; one file
OUT/associations.csv     of embeddings;  OUT/units.csv of single units
OUT/audit.json           all of it with its provenance
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlens.methods.embed import embed
from mmlens.methods.unit_responses import TOWER, chunks, unit_responses
from mmlens.methods.word_probe import PLACES, SIZES, word_canvas, word_probe
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about as provenance
from mmlens.papers.bias.associations import associations, corrected, unit_associations
from mmlens.papers.bias.bias_page import limits, page
from mmlens.papers.bias.concepts_file import Concepts, Shown, read_concepts
from mmlens.papers.bootstrap import MOST
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, path
from mmlens.values.errors import writing
from mmlens.values.labels import Neuron
from mmlens.values.pictures import open_picture
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

UNIT_DRAWS = 1999
"""Permutations of all units at once take their time."""


@dataclass(frozen=True, eq=False)
class BiasReport:
    """What `audit_bias` found and wrote.

    Attributes:
        page: OUT/report.html.
        associations: concept, concept_as, group, group_as, d, d_low, d_high, p, p_holm, n,
            n_others; the smallest p_holm first.
        units: concept, concept_as, group, group_as, neuron, z, z_low, z_high, auroc, p, p_family,
            p_holm, units.
        limits: what it can't show, in sentences.
        about: provenance.
    """

    page: Path
    associations: pd.DataFrame = field(repr=False)
    units: pd.DataFrame = field(repr=False)
    limits: list[str] = field(repr=False)
    about: dict[str, Any] = field(repr=False)


@needs("pictures")
def audit_bias(
    model: HookedModel,
    concepts: str | Path | None = None,
    out: str | Path = "bias",
    *,
    layer: int = -1,
    site: str | None = None,
    draws: int = 9999,
    seed: int = 0,
    batch: int = 32,
) -> BiasReport:
    """Measure what embeddings and units of a model associate with groups, and report it.

    Args:
        concepts: a concepts file (`mmlens.papers.bias.concepts_file`); None: that of the bundled
            world.
        out: the folder that is written.
        layer, site: whose units are asked, as in `unit_responses`; where the model has no text
            tower, their responses are its embedding, too.
        draws: permutations, and draws of the bootstrap; of units at most `UNIT_DRAWS`.
        batch: pictures that are read side by side.

    Raises:
        ExperimentError: a concepts file in which nothing is compared. WriteError: no such folder.
    """
    given, draws = read_concepts(concepts), count(draws, "draws", most=MOST)
    reads = _Reads(model, layer, site, count(batch, "batch"))
    embedded, answers = [], []
    for group_as in given.kinds(given.groups):
        for concept_as in given.kinds(given.concepts):
            how = {"concept_as": concept_as, "group_as": group_as}
            texts = "texts" in (group_as, concept_as)
            if not texts or model.can("similarity"):
                both = (reads.embedded(given.groups, group_as),
                        reads.embedded(given.concepts, concept_as))  # fmt: skip
                same = group_as == concept_as
                found = associations(*both, same=same, draws=draws, seed=seed)
                embedded.append(found.assign(**how))
            if not texts:
                both = reads.units(given.groups, group_as), reads.units(given.concepts, concept_as)
                few = min(draws, UNIT_DRAWS)
                found = unit_associations(*both, draws=few, seed=seed)
                answers.append(found.assign(**how))
    if not embedded:
        raise ExperimentError(
            f"{model.name!r} reads no texts, and the concepts of {str(given.file)!r} are texts"
            " alone: give them pictures or words."
        )
    table = corrected(pd.concat(embedded, ignore_index=True), "p")
    units = corrected(pd.concat(answers, ignore_index=True), "p_family") if answers else None
    return _write(model, given, table, _named(units, reads.at), path(out, "out"), draws, seed)


class _Reads:
    """Stimuli as vectors; each kind of a group or concept is read once."""

    def __init__(self, model: Any, layer: int, site: str | None, batch: int) -> None:
        self.model, self.how, self.batch = model, {"layer": layer, "site": site}, batch
        self.canvas = word_canvas(model.towers[TOWER])
        self.kept: dict[tuple[int, str, str], dict[str, np.ndarray]] = {}
        self.at = 0

    def embedded(self, shown: Shown, kind: str) -> dict[str, np.ndarray]:
        """Name -> Float[stimulus, dim]"""
        if not self.model.can("similarity"):
            return self.units(shown, kind)
        return self._once("embedded", shown, kind, self._embedded)

    def units(self, shown: Shown, kind: str) -> dict[str, np.ndarray]:
        """Name -> Float[stimulus, unit]"""
        return self._once("units", shown, kind, self._units)

    def _once(self, what: str, shown: Shown, kind: str, read: Any) -> dict[str, np.ndarray]:
        key = id(shown), what, kind
        if key not in self.kept:
            every = [one for own in shown.values() for one in own[kind]]
            rows = np.asarray(read(every, kind), float)
            ends = np.cumsum([len(own[kind]) for own in shown.values()])[:-1]
            self.kept[key] = dict(zip(shown, np.split(rows, ends), strict=True))
        return self.kept[key]

    def _embedded(self, every: Sequence[Any], kind: str) -> np.ndarray:
        if kind == "texts":
            return _plain(embed(self.model, list(every), batch=self.batch))
        if kind == "pictures":
            flat = [picture for one in every for picture in one]
            parts = [embed(self.model, [open_picture(one) for one in some], batch=self.batch)
                     for some in chunks(flat, self.batch)]  # fmt: skip
            return _means(np.concatenate([_plain(part) for part in parts]), every)
        spots = [(size, spot) for size in SIZES for spot in PLACES]
        drawn = (self.canvas(word, size, spot) for word in every for size, spot in spots)
        parts = [_plain(embed(self.model, some, batch=self.batch))
                 for some in chunks(drawn, self.batch)]  # fmt: skip
        rows = np.concatenate(parts)
        return rows.reshape(len(every), len(spots), -1).mean(1)

    def _units(self, every: Sequence[Any], kind: str) -> np.ndarray:
        if kind == "words":
            found = word_probe(self.model, list(every), batch=self.batch, **self.how)
            order = {word: i for i, word in enumerate(found.of("word"))}
            rows = _plain(found.values)[[order[word] for word in every]]
        else:
            flat = [picture for one in every for picture in one]
            found = unit_responses(self.model, flat, batch=self.batch, **self.how)
            rows = _means(_plain(found.values), every)
        self.at = int(found.about.get("layer") or 0)
        return rows


def _means(rows: np.ndarray, every: Sequence[Sequence[Any]]) -> np.ndarray:
    """The mean over the pictures of each stimulus."""
    ends = np.cumsum([len(one) for one in every])[:-1]
    return np.stack([part.mean(0) for part in np.split(rows, ends)])


def _plain(values: Any) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _named(units: pd.DataFrame | None, layer: int) -> pd.DataFrame:
    if units is None:
        return pd.DataFrame(columns=["concept", "group", "neuron", "p_holm"])
    names = [Neuron(layer, int(unit), TOWER) for unit in units["unit"]]
    return units.assign(neuron=names).drop(columns="unit")


def _write(
    model: Any,
    given: Concepts,
    table: pd.DataFrame,
    units: pd.DataFrame,
    out: Path,
    draws: int,
    seed: int,
) -> BiasReport:
    order: Any = table.sort_values(["p_holm", "p"], kind="stable", ignore_index=True)
    units = units.sort_values("p_holm", kind="stable", ignore_index=True)
    told: dict[str, Any] = {**provenance(model), "concepts": given.file.name, "what": given.about,
                            "sha256": hashlib.sha256(given.file.read_bytes()).hexdigest(),
                            "stimuli": _counts(given), "draws": draws, "seed": seed}  # fmt: skip
    cannot = limits(order, given)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "associations.csv", order.to_csv(index=False))
    write_whole(out / "units.csv", units.to_csv(index=False))
    whole = {"about": told, "limits": cannot, "associations": order.to_dict("records"),
             "units": units.to_dict("records")}  # fmt: skip
    write_whole(out / "audit.json", json.dumps(whole, indent=2, default=str) + "\n")
    write_whole(out / "report.html", page(order, units, cannot, told, given, model.name))
    return BiasReport(out / "report.html", order, units, cannot, told)


def _counts(given: Concepts) -> dict[str, Mapping[str, int]]:
    """How many stimuli of each kind there are, by name."""
    both = {**given.groups, **given.concepts}
    return {name: {kind: len(own) for kind, own in kinds.items()} for name, kinds in both.items()}
