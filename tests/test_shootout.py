"""The shoot-out: contests of several studies in one table, with what could not be asked."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from bridges import bridge
from judging import all_judged
from test_experiments import SAMPLES
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.datasets.sample import Samples
from mmlens.papers import shootout
from mmlens.papers.contests import COLUMNS, judged
from mmlens.papers.shootout.studies import STUDIES
from mmlens.papers.tables import ExperimentError
from mmlens.sweep.record import SweepError
from mmlens.values.errors import CheckpointError

FEW: Any = {"draws": 50, "progress": False}


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


def pictures() -> Samples:
    return Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")


def test_the_table_holds_the_contests_of_the_studies(model, tmp_path):
    tmp_path = tmp_path / "new"
    report = shootout.reproduce(model, pictures(), tmp_path, studies=["alignment"], **FEW)
    own = mm.papers.alignment.reproduce(model, pictures(), tmp_path / "alignment", **FEW)
    told = all_judged(own.contests, draws=50)
    pd.testing.assert_frame_equal(report.table[list(COLUMNS)], told)
    kept = pd.read_csv(tmp_path / "shootout.csv")
    assert kept["study"].tolist() == ["alignment"] * len(told)
    text = report.results.read_text()
    assert "1 not told apart" in text and told["question"].iloc[0] in text
    assert "claims hold" not in text and "The paper" not in text
    assert not len(report.verdicts)


def test_what_a_study_cannot_ask_is_told_and_the_others_stand(model, tmp_path, monkeypatch):
    def refuses(*args: Any, **how: Any) -> Any:
        raise ExperimentError("There are no masks.")

    monkeypatch.setattr(mm.papers.neo, "reproduce", refuses, raising=False)
    report = shootout.reproduce(model, pictures(), tmp_path, studies=["alignment", "neo"], **FEW)
    assert set(report.table["study"]) == {"alignment"}
    assert "There are no masks." in report.results.read_text()
    assert "There are no masks." in report.page.read_text()
    with pytest.raises(ExperimentError, match="neo: There are no masks."):
        shootout.reproduce(model, pictures(), tmp_path / "b", studies=["neo"], **FEW)


def test_a_folder_of_other_pictures_is_refused(model, tmp_path):
    shootout.reproduce(model, pictures(), tmp_path, studies=["alignment"], **FEW)
    few = pictures()[:2]
    with pytest.raises(SweepError):
        shootout.reproduce(model, few, tmp_path, studies=["alignment"], **FEW)


def test_a_folder_of_another_training_is_refused_and_not_left_out(model, tmp_path, monkeypatch):
    def refuses(*args: Any, **how: Any) -> Any:
        raise CheckpointError("The folder holds another training.")

    monkeypatch.setattr(mm.papers.frozen_block, "reproduce", refuses, raising=False)
    with pytest.raises(CheckpointError, match="another training"):
        shootout.reproduce(model, pictures(), tmp_path, studies=["frozen_block"], **FEW)


def test_every_study_is_named_by_a_command_that_there_is():
    from mmlens.cli.reproduce import reproduce_app
    from mmlens.papers.contests import Contest
    from mmlens.papers.shootout.shootout_report import _part

    table = pd.DataFrame([(str(i), arm, 1.0) for i in range(9) for arm in ("a", "b")],
                         columns=["sample", "arm", "value"])  # fmt: skip
    contest = Contest("Which?", "all", table, {"a": "b"})
    commands = {one.name for one in reproduce_app.registered_commands}
    for name in STUDIES:
        how = _part("x-1", contest, judged(contest, draws=20), name).how
        assert how.split("mmlens reproduce ")[1].removesuffix(".") in commands, name


def test_every_study_hands_over_contests_and_takes_what_all_are_given():
    import inspect

    for name, study in STUDIES.items():
        reproduce = getattr(mm.papers, name).reproduce
        options = set(inspect.signature(reproduce).parameters)
        assert {"model", "data", "out", "draws", "seed", "resume", "progress"} <= options, name
        assert set(study.options(10)) <= options, name


def test_another_study_is_refused_in_a_sentence(model, tmp_path):
    with pytest.raises(mm.MMLensError, match="did you mean 'neurons'"):
        shootout.reproduce(model, pictures(), tmp_path, studies=["neuron"])


def test_the_command_prints_every_method(tmp_path):
    asked = ["reproduce", "shootout", "--model", "toy-gptj-planted", "--data", "pictos:held_out:2",
             "--study", "alignment", "--out", str(tmp_path / "new"), "--draws", "50"]  # fmt: skip
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["methods"][0]["beats"] is None and told["methods"][0]["study"] == "alignment"
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0 and "not told apart" in " ".join(shown.stdout.split())
