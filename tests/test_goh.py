"""`mmlens reproduce goh`: a whole report of a small model, its verdicts, the published words."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pandas as pd
import pytest
from clip_twins import classifier, flat
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.papers import goh
from mmlens.papers.goh.questions.formats import against_others, folder, world
from mmlens.papers.goh.report import goh_sections as told
from mmlens.papers.tables import ExperimentError

regions = importlib.import_module("mmlens.papers.goh.questions.region_check")
CONCEPTS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """FORMAT/CONCEPT/*.png: two formats of three colours."""
    root = tmp_path_factory.mktemp("formats")
    for seed, name in enumerate(("photo", "<b>drawing")):
        for concept, colour in CONCEPTS.items():
            (root / name / concept).mkdir(parents=True)
            for i, one in enumerate(flat(colour, 4, seed)):
                one.save(root / name / concept / f"{i}.png")
    return root


def test_a_report_is_whole_and_every_experiment_is_measured_or_says_why_not(data, tmp_path):
    report = goh.reproduce(classifier(), data, tmp_path, draws=60)
    assert [one.key for one in report.sections] == list(told.TITLES)
    assert list(report.verdicts["experiment"]) == list(told.CLAIMS)
    assert report.verdicts["holds"].isin([True, False, None]).all()
    page, text = report.page.read_text(), report.results.read_text()
    assert "<b>drawing" not in page and "reproduce goh" in page and "{{" not in page[:5000]
    assert not re.search(r'src="http|href="http', page)
    for one in report.sections:
        assert f'id="{one.key}"' in page and told.HOW[one.key] in text
    best = pd.read_csv(tmp_path / "tables" / "T2.csv")
    assert set(best["concept"]) == set(CONCEPTS)
    stroop = next(one for one in report.sections if one.key == "T4")
    assert stroop.says.startswith("Not measured")  # its head has not all colours


def best(p: float, n: int) -> pd.DataFrame:
    row = {"neuron": mm.Neuron(1, 2, "vision"), "z": 2.0, "z_low": 1.0, "z_high": 3.0,
           "auroc": 0.9, "weakest": "photo", "p_family": p}  # fmt: skip
    return pd.DataFrame([{"concept": f"c{i}", **row} for i in range(n)])


def test_units_of_a_concept_are_claimed_only_after_correction_for_all_concepts():
    assert told.formats_told(best(0.005, 8)).verdict.holds is True
    assert told.formats_told(best(0.02, 8)).verdict.holds is False
    assert told.formats_told(best(0.02, 4)).verdict.holds is None


def test_stroop_holds_where_words_are_read_and_fails_where_inks_are_named():
    def rates(ink, word):
        rows = [{"condition": kind, "n": 49, "ink": ink, "ink_low": ink - 0.1,
                 "ink_high": ink + 0.1, "word": word, "word_low": word - 0.1,
                 "word_high": word + 0.1}
                for kind in ("congruent", "incongruent", "neutral")]  # fmt: skip
        return told.stroop_told(pd.DataFrame(rows)).verdict.holds

    assert [rates(0.1, 0.8), rates(0.8, 0.1), rates(0.4, 0.5)] == [True, False, None]


def test_a_word_decides_only_if_it_does_more_than_a_control_word():
    table = pd.DataFrame({"fraction_changed_to": [0.5], "avg_img_l0_norm_diff": [0.07],
                          "baseline_accuracy": [0.9], "classifier": ["zero-shot"]})  # fmt: skip
    gaps = ([0.4, 0.2, 0.6], [-0.4, -0.6, -0.2], [0.1, -0.1, 0.3])
    assert [told.attack_told(table, gap).verdict.holds for gap in gaps] == [True, False, None]


def test_formats_are_folders_of_the_same_concepts(data, tmp_path):
    assert set(folder(data)) == {"photo", "<b>drawing"}
    (tmp_path / "photo" / "dog").mkdir(parents=True)
    with pytest.raises(ExperimentError, match="two formats"):
        folder(tmp_path)
    seen = world(["dog", "rose"], 2)
    concept, others = against_others(seen, "dog")["written"]
    assert len(concept) == len(others) == 2 and set(seen) == {"drawing", "symbol", "written"}
    with pytest.raises(ExperimentError, match="no 'dinosaur hat'"):
        world(["dinosaur hat"], 2)


def test_the_published_words_are_those_of_the_released_networks():
    words = regions.published_words("RN50x4")
    assert words[862][:4] == ["americans", "american", "america", "usa"]
    assert words[1317][0] == "zimbabwe" and all(len(own) == 20 for own in words.values())


def test_units_that_answer_to_their_published_words_are_found(monkeypatch):
    model = classifier()
    probed = mm.word_probe(model, ["dog", "cat", "house", "tree", "moon", "river"])
    order = np.argsort(-probed.values[:, 3].numpy()).tolist()
    own = [probed.of("word")[i] for i in order]
    monkeypatch.setattr(regions, "published_words", lambda network: {3: own})
    table = goh.region_check(model, background=0)
    assert table["found"].tolist() == [5] and table["neuron"][0] == mm.Neuron(1, 3, "vision")
    monkeypatch.setattr(regions, "published_words", lambda network: {862: own})
    with pytest.raises(ExperimentError, match="862"):
        goh.region_check(model, background=0)


def test_the_command_compares_units_with_the_published_words(monkeypatch):
    monkeypatch.setattr("mmlens.families.load", lambda name: classifier())
    monkeypatch.setattr(regions, "published_words", lambda network: {3: ["dog", "cat"]})
    monkeypatch.setattr(regions, "english_words", lambda: frozenset({"moon", "tree"}))
    done = CliRunner().invoke(app, ["reproduce", "goh", "--model", "twin", "--regions"])
    assert done.exit_code == 0, done.output
    assert "of 1 units have 3 or more" in done.output
