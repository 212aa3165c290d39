"""The experiments of the study, measured on one model: each gives a part of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mmlens.methods.blank_check import blank_check
from mmlens.methods.conditional_probability import activation_given_label, label_given_activation
from mmlens.methods.linear_probe import LinearProbe, linear_probe, sparse_probe
from mmlens.methods.stroop import STROOP_TEMPLATE, stroop, stroop_probs, stroop_rates
from mmlens.methods.unit_responses import TOWER, unit_responses
from mmlens.methods.word_probe import top_words, word_probe
from mmlens.methods.word_vectors import word_association
from mmlens.papers.bootstrap import intervals
from mmlens.papers.claims import Row
from mmlens.papers.goh.questions.attacks import attacks
from mmlens.papers.goh.questions.formats import Formats
from mmlens.papers.goh.questions.matched_units import half, matched_units
from mmlens.papers.goh.report import goh_sections as told
from mmlens.papers.study_report import Part
from mmlens.values.errors import MMLensError
from mmlens.values.labels import Neuron

TEMPLATE = "a picture of a {}"
RAISED = 3.0
"""What is added to a unit on a blank picture: near the largest responses of a ReLU6."""
WORDS = 6
"""Words that are written over pictures."""
SHOWN = 3
"""Units with a conditional plot."""


@dataclass(eq=False)
class Experiments:
    """What all experiments are measured with.

    Attributes:
        other: the encoder of the matched units; None for none.
        site: where units are read.
        inks: texts of the Stroop question, the first for the verdict.
        golden: what has the form of published data, by the name of its file.
    """

    model: Any
    formats: Formats
    layer: int
    site: str
    other: Any = None
    judged: int = 12
    draws: int = 1000
    seed: int = 0
    inks: Sequence[str] = (STROOP_TEMPLATE,)
    best: pd.DataFrame = field(default_factory=pd.DataFrame)
    golden: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> Iterator[Part]:
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

    def _formats(self) -> Part:
        self.responses = self._responses(self.model, layer=self.layer, site=self.site)
        several = [self.responses]
        if self.other is not None:
            several.append(self._responses(self.other))
        how: dict[str, Any] = {"judged": self.judged, "draws": self.draws, "seed": self.seed}
        self.best = matched_units(*several, **how)
        at = range(self.model.towers[TOWER].n_layers)[self.layer]
        units = [Neuron(at, int(unit), TOWER) for unit in self.best["unit"]]
        self.best = self.best.assign(neuron=units)
        return told.formats_told(self.best, "" if self.other is None else self.other.name)

    def _responses(self, model: Any, **read: Any) -> dict[str, dict[str, np.ndarray]]:
        """Format -> concept -> Float[picture, unit]."""
        out: dict[str, dict[str, np.ndarray]] = {}
        for name, own in self.formats.items():
            every = [one for seen in own.values() for one in seen]
            values = unit_responses(model, every, **read).values.float().cpu().numpy()
            ends = np.cumsum([len(seen) for seen in own.values()])[:-1]
            out[name] = dict(zip(own, np.split(values, ends), strict=True))
        return out

    def _words(self) -> Part:
        self.scores = word_probe(self.model, self.concepts, layer=self.layer, site=self.site)
        units = list(dict.fromkeys(self.best["neuron"]))
        table = top_words(self.scores, 5, neurons=units)
        first = table[table["rank"] == 0].set_index("neuron")["word"]
        lines = [["unit", "concept in T2", "words"]]
        own = 0
        for row in self.best.to_dict("records"):
            words = table.loc[table["neuron"] == row["neuron"], "word"]
            lines.append([str(row["neuron"]), row["concept"], ", ".join(words)])
            own += first[row["neuron"]] == row["concept"]
        says = (
            f"Of {own} of {len(self.best)} concepts of T2 the unit answers most to the concept's"
            f" name, among {len(self.concepts)} names."
        )
        return told.part(
            "T1", says, table=lines, summary=table.assign(neuron=table["neuron"].map(str))
        )

    def _attack(self) -> Part:
        judged = list(dict.fromkeys(self.best["concept"]))
        first = next(iter(self.formats.values()))
        pairs = [(seen, name) for name in judged for seen in first[name]]
        fitted, asked = pairs[::2], pairs[1::2]
        pictures, labels = zip(*asked, strict=True)
        probe = None if self.model.can("similarity") else self._probe(fitted)
        classes = self.concepts if probe is None else list(probe.classes)
        table, gaps = attacks(
            self.model, pictures, labels, judged[:WORDS], classes, template=TEMPLATE, probe=probe
        )
        here = {
            way: intervals(gap[:, None], ranges=[(-1.0, 1.0)], seed=self.seed)[0]
            for way, gap in gaps.items()
        }
        self.golden["typographic_attacks.json"] = _published_form(table)
        return told.attack_told(table, here)

    def _probe(self, pairs: Sequence[tuple[Any, str]]) -> LinearProbe:
        """A probe where the model itself names nothing."""
        pictures, labels = zip(*pairs, strict=True)
        return linear_probe(self.model, pictures, labels, layer=self.layer, site=self.site)

    def _stroop(self) -> Part:
        found = {text: stroop(self.model, template=text) for text in self.inks}
        rates = {text: stroop_rates(scores) for text, scores in found.items()}
        first, scores = next(iter(found.items()))
        answers = scores.of("answer")
        best = scores.values.argmax(-1).tolist()
        table = [["ink \\ word", *scores.of("word")]] + [
            [ink, *(answers[i] for i in row)]
            for ink, row in zip(scores.of("ink"), best, strict=True)
        ]
        setup = {"zero_shot_setup": first.replace("{}", "")}
        self.golden["stroop.json"] = {"prompt": setup, "probs": stroop_probs(scores)}
        rest = {text: one for text, one in rates.items() if text != first}
        return told.stroop_told(rates[first], 1 / len(answers), table, first, rest)

    def _conditional(self) -> Part:
        tables, medians = [], []
        for row in self.best.head(SHOWN).to_dict("records"):
            unit, concept, values, labels = row["neuron"].unit, row["concept"], [], []
            for own in half(self.responses, 1).values():
                for other, seen in own.items():
                    values += seen[:, unit].tolist()
                    labels += [concept if other == concept else "other"] * len(seen)
            named = {"unit": str(row["neuron"]), "concept": concept}
            tables.append(label_given_activation(values, labels, buckets=6).assign(**named))
            medians.append(activation_given_label(values, labels).assign(**named))
        return told.conditional_told(pd.concat(tables, ignore_index=True),
                                     pd.concat(medians, ignore_index=True))  # fmt: skip

    def _vectors(self) -> Part:
        table: Any = word_association(self.scores, self.concepts, self.concepts)
        apart = table[table["word"] != table["other"]]
        return told.vectors_told(apart.sort_values("cosine", ascending=False).iloc[::2])

    def _blank(self) -> Part:
        form = TEMPLATE if self.model.can("similarity") else "{}"
        texts = {name: form.format(name) for name in self.concepts}
        rows = []
        for row in self.best.to_dict("records"):
            found = blank_check(
                self.model, row["neuron"], list(texts.values()), [RAISED], seed=self.seed,
                randoms=len(self.best) * 40 - 1,
            )  # fmt: skip
            own: Any = found[found["text"] == texts[row["concept"]]].iloc[0]
            rank = 1 + int((found["change"] > own["change"]).sum())
            rows.append({**own, "concept": row["concept"], "rank": rank, "texts": len(texts)})
        return told.blank_told(pd.DataFrame(rows))

    def _probes(self) -> Part:
        judged = list(dict.fromkeys(self.best["concept"]))
        pairs = [(one, name) for own in self.formats.values() for name in judged
                 for one in own[name]]  # fmt: skip
        (fitted, named), (asked, truth) = (zip(*some, strict=True) for some in
                                           (pairs[::2], pairs[1::2]))  # fmt: skip
        read: dict[str, Any] = {"layer": self.layer, "site": self.site}
        probes = {
            "all units": linear_probe(self.model, fitted, named, **read),
            "3 units a concept": sparse_probe(self.model, fitted, named, 3, **read),
        }
        rows = [
            (name, top, probe.accuracy(self.model, asked, truth, k=top))
            for name, probe in probes.items() for top in (1, 5)
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=["probe", "top", "accuracy"])
        says = (
            f"Three units a concept name {told.percent(rows[2][2])} of other pictures, of"
            f" {len(judged)} concepts in {len(self.formats)} formats."
        )
        lines = [
            Row(f"{name}, top {top}", told.percent(value, 1),
                "56.4 %" if (top, name[0]) == (5, "3") else "",
                "ImageNet, 1000 classes" if (top, name[0]) == (5, "3") else "")
            for name, top, value in rows
        ]  # fmt: skip
        return told.part("probes", says, rows=lines, summary=table)


def _published_form(table: Any) -> dict[str, Any]:
    """The attacks in the paper's way, in the form of the published data."""
    columns = ["target", "text", "fraction_changed_to", "fraction_already_equal",
               "fraction_changed_away", "fraction_both_results_not_target",
               "avg_img_l0_norm_diff"]  # fmt: skip
    own = table[(table["way"] == "paper") & (table["text"] == table["target"])]
    return {
        "baseline_accuracy": float(own["baseline_accuracy"].iloc[0]), "n": int(own["n"].iloc[0]),
        "attacks": own[columns].to_dict("records"),
    }  # fmt: skip
