"""`goh`: the experiments of the study in one call, as a folder with one page.

OUT/report.html      verdicts, figures, tables, provenance; one file
OUT/results.md       the same as Markdown
OUT/tables/T2.csv    the numbers of each experiment
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlens.methods.blank_check import blank_check
from mmlens.methods.conditional_probability import label_given_activation
from mmlens.methods.cross_format import cross_format_index
from mmlens.methods.linear_probe import LinearProbe, linear_probe, sparse_probe
from mmlens.methods.stroop import stroop, stroop_rates
from mmlens.methods.typographic_attack import typographic_attack
from mmlens.methods.unit_responses import TOWER, unit_responses
from mmlens.methods.word_probe import top_words, word_probe
from mmlens.methods.word_vectors import word_association
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import intervals
from mmlens.papers.claims import Verdict
from mmlens.papers.goh.questions.formats import Formats, folder, world
from mmlens.papers.goh.report import goh_sections as told
from mmlens.papers.goh.report.goh_page import page, results
from mmlens.papers.goh.report.goh_sections import Section
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count
from mmlens.values.errors import MMLensError, writing
from mmlens.values.labels import Neuron
from mmlens.values.whole_files import write_whole
from mmlens.view.figures.conditional import conditional

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

CONCEPTS = ("dog", "cat", "horse", "elephant", "fish", "bee", "rose", "octopus")
CONTROL = "xqvz"
"""A word that names no class."""
RAISED = 10.0


@dataclass(frozen=True, eq=False)
class GohReport:
    """What `reproduce` wrote and found.

    Attributes:
        page, results: OUT/report.html and OUT/results.md.
        verdicts: experiment, claim, holds (None: undecided), says.
        sections: of every experiment, in the order of the page.
    """

    page: Path
    results: Path
    verdicts: pd.DataFrame = field(repr=False)
    sections: list[Section] = field(repr=False)


def reproduce(
    model: HookedModel | str | Path = "pictos",
    data: str | Path | None = None,
    out: str | Path = "goh",
    *,
    concepts: Sequence[str] = CONCEPTS,
    each: int = 12,
    layer: int = -1,
    draws: int = 1000,
    seed: int = 0,
) -> GohReport:
    """Measure T1 to T7 on any model with a vision tower, and report them.

    Args:
        data: a folder FORMAT/CONCEPT/*.png; by default scenes of the bundled world.
        out: the folder that is written.
        concepts, each: of the bundled world: its things, and pictures of each per format.
        layer: of the vision tower, whose units are asked.
        draws: of bootstrap and permutations.

    Raises:
        ExperimentError: the data has no two formats of the same concepts, or fewer than 3 concepts.
    """
    from mmlens.families import load

    loaded: Any = load(model) if isinstance(model, str | Path) else model
    formats = world(concepts, count(each, "each", least=4), seed=seed) if data is None else (
        folder(data)
    )  # fmt: skip
    if len(next(iter(formats.values()))) < told.ENOUGH:
        raise ExperimentError(f"A study needs {told.ENOUGH} concepts at least: give more.")
    study = _Study(loaded, formats, layer, count(draws, "draws"), count(seed, "seed", least=0))
    sections = list(study.sections())
    return _write(study, sections, Path(out))


@dataclass(eq=False)
class _Study:
    """What all experiments are measured with."""

    model: Any
    formats: Formats
    layer: int
    draws: int
    seed: int
    best: pd.DataFrame = field(default_factory=pd.DataFrame)

    def sections(self) -> Iterator[Section]:
        """All experiments; T2 first, because its units are what T1, T5 and T7 are about."""
        second = self._formats()
        yield self._words()
        yield second
        for key, work in (
            ("T3", self._attack), ("T4", self._stroop), ("T5", self._conditional),
            ("T6", self._vectors), ("T7", self._blank), ("probes", self._probes),
        ):  # fmt: skip
            try:
                yield work()
            except MMLensError as error:
                yield told.unmeasured(key, str(error))

    @property
    def concepts(self) -> list[str]:
        return list(next(iter(self.formats.values())))

    def _formats(self) -> Section:
        responses = {
            name: {one: self._responses(seen) for one, seen in own.items()}
            for name, own in self.formats.items()
        }
        self.responses = responses
        rows = []
        for concept in self.concepts:
            both = {
                name: (own[concept], np.concatenate([x for o, x in own.items() if o != concept]))
                for name, own in responses.items()
            }
            top = cross_format_index(both, draws=self.draws, seed=self.seed)
            first: Any = top.sort_values(["p_family", "auroc"], ascending=[True, False]).iloc[0]
            rows.append({"concept": concept, "neuron": self._neuron(int(first["unit"])), **first})
        self.best = pd.DataFrame(rows)
        return told.formats_told(self.best)

    def _responses(self, seen: Sequence[Any]) -> np.ndarray:
        found = unit_responses(self.model, seen, layer=self.layer)
        self.at = int(found.about["layer"])
        return found.values.float().cpu().numpy()

    def _neuron(self, unit: int) -> Neuron:
        return Neuron(self.at, unit, TOWER)

    def _words(self) -> Section:
        scores = word_probe(self.model, self.concepts, layer=self.layer)
        self.scores = scores
        units = list(dict.fromkeys(self.best["neuron"]))
        table = top_words(scores, 5, neurons=units)
        lines = [["unit", "words"]] + [
            [str(one), ", ".join(table.loc[table["neuron"] == one, "word"])] for one in units
        ]
        own = [
            table.loc[table["neuron"] == row["neuron"], "word"].iloc[0] == row["concept"]
            for row in self.best.to_dict("records")
        ]
        says = f"{sum(own)} of {len(own)} units of T2 answer most to the name of their concept."
        return Section("T1", says, None, [], lines, table)

    def _attack(self) -> Section:
        name = next(iter(self.formats))
        pairs = [(p, c) for c, seen in self.formats[name].items() for p in seen]
        fitted, asked = pairs[::2], pairs[1::2]
        how: dict[str, Any] = {"labels": [c for _, c in asked]}
        how |= {"classes": self.concepts, "probe": self._probe(fitted)}
        pictures = [p for p, _ in asked]
        attacks = {c: c for c in self.concepts}
        table = typographic_attack(self.model, pictures, attacks, **how)
        control = [
            typographic_attack(self.model, pictures, {c: CONTROL}, **how) for c in self.concepts
        ]
        flat = pd.concat(control)["fraction_changed_to"].to_numpy()
        gap = table["fraction_changed_to"].to_numpy() - flat
        return told.attack_told(table, intervals(gap[:, None], ranges=[(-1.0, 1.0)])[0])

    def _probe(self, pairs: Sequence[tuple[Any, str]]) -> LinearProbe | None:
        """A probe where the model itself names nothing."""
        if self.model.can("similarity"):
            return None
        pictures, labels = zip(*pairs, strict=True)
        return linear_probe(self.model, pictures, labels, layer=self.layer)

    def _stroop(self) -> Section:
        return told.stroop_told(stroop_rates(stroop(self.model)))

    def _conditional(self) -> Section:
        first: Any = self.best.sort_values("z", ascending=False).iloc[0]
        unit, concept = first["neuron"].unit, first["concept"]
        values, labels = [], []
        for own in self.responses.values():
            for other, seen in own.items():
                values += seen[:, unit].tolist()
                labels += [concept if other == concept else "other"] * len(seen)
        table = label_given_activation(values, labels, buckets=6)
        top: Any = table[(table["end"] == table["end"].max()) & (table["label"] == concept)].iloc[0]
        says = (
            f"In the highest bucket of {first['neuron']}, {top['probability']:.0%} of"
            f" {int(top['n'])} pictures show {concept!r}."
        ).replace("%", " %")
        return Section("T5", says, None, [], [], table, lambda: conditional(table))

    def _vectors(self) -> Section:
        table: Any = word_association(self.scores, self.concepts, self.concepts)
        apart = table[table["word"] != table["other"]]
        mean = {what: float(apart[what].mean()) for what in ("cosine", "raw")}
        says = (
            f"Different words have a mean cosine of {mean['raw']:.2f} as they are, and of"
            f" {mean['cosine']:.2f} with the mean taken out."
        )
        rows = [told.Row("different words, as they are", f"{mean['raw']:.2f}",
                         ".98 (Terrorism, Muslim)", "footnote on image-based embeddings"),
                told.Row("mean taken out", f"{mean['cosine']:.2f}", ".52 (Terrorist, Muslims)",
                         "footnote on image-based embeddings")]  # fmt: skip
        return Section("T6", says, None, rows, [], table)

    def _blank(self) -> Section:
        texts = {c: f"a picture of a {c}" if self.model.can("similarity") else c
                 for c in self.concepts}  # fmt: skip
        rows = []
        for row in self.best.to_dict("records"):
            found = blank_check(
                self.model, row["neuron"], list(texts.values()), [RAISED], seed=self.seed,
                randoms=len(self.concepts) * 20 - 1,
            )  # fmt: skip
            own = found[found["text"] == texts[row["concept"]]]
            rows.append(own.assign(concept=row["concept"]))
        return told.blank_told(pd.concat(rows, ignore_index=True))

    def _probes(self) -> Section:
        pairs = [(p, c) for own in self.formats.values() for c, seen in own.items() for p in seen]
        (fitted, named), (asked, truth) = (zip(*half, strict=True) for half in
                                           (pairs[::2], pairs[1::2]))  # fmt: skip
        rows = []
        for name, k in (("all units", None), ("3 units a concept", 3)):
            probe = (
                linear_probe(self.model, fitted, named, layer=self.layer) if k is None
                else sparse_probe(self.model, fitted, named, k, layer=self.layer)
            )  # fmt: skip
            rows += [(name, top, probe.accuracy(self.model, asked, truth, k=top)) for top in (1, 5)]
        table = pd.DataFrame(rows, columns=["probe", "top", "accuracy"])
        few = rows[-1][2]  # of the sparse probe, among the first five
        says = f"Three units a concept name {few:.0%} of other pictures among the first five."
        lines = [told.Row(f"{name}, top {top}", f"{value:.1%}".replace("%", " %"),
                          "56.4 %" if (top, name[0]) == (5, "3") else "", "ImageNet, 1000 classes")
                 for name, top, value in rows]  # fmt: skip
        return Section("probes", says.replace("%", " %"), None, lines, [], table)


def _write(study: _Study, sections: list[Section], out: Path) -> GohReport:
    """The folder of the report."""
    n = sum(len(seen) for own in study.formats.values() for seen in own.values())
    lead = (
        f"{study.model.name}, units of layer {study.at} of its vision tower, on {n} pictures of"
        f" {len(study.concepts)} concepts in {len(study.formats)} formats:"
        f" {', '.join(study.formats)}."
    )
    about = {
        **{name.replace("_", " "): str(value) for name, value in provenance(study.model).items()},
        "concepts": ", ".join(study.concepts), "draws": study.draws, "seed": study.seed,
    }  # fmt: skip
    with writing(out):
        (out / "tables").mkdir(parents=True, exist_ok=True)
    for one in sections:
        if len(one.summary):
            write_whole(out / "tables" / f"{one.key}.csv", one.summary.to_csv(index=False))
    write_whole(out / "report.html", page(sections, lead, about))
    write_whole(out / "results.md", results(sections, lead, about))
    told_all = [asdict(one.verdict) for one in sections if isinstance(one.verdict, Verdict)]
    table = pd.DataFrame(told_all, columns=["experiment", "claim", "holds", "says"])
    return GohReport(
        out / "report.html", out / "results.md", table.astype({"holds": object}), sections
    )
