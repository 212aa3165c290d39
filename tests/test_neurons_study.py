"""Lists of neurons, silenced, where the truth is planted; and claims that tables decide."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from judging import all_judged
from test_experiments import PLANTED, SAMPLES, mean_of

import mmlens as mm
from mmlens.datasets.sample import Samples
from mmlens.papers import neurons
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.neurons import neurons_report
from mmlens.papers.neurons.neurons_claims import CLAIMS, judged
from mmlens.papers.neurons.pools import DOMAIN, MODALITY, pool_lists
from mmlens.papers.neurons.questions.lists import (
    ACTIVE,
    CONTRIBUTIONS,
    GRADIENT,
    LISTS,
    T_NEURONS,
    silenced_lists,
    summary,
)
from mmlens.papers.tables import ExperimentError, ask
from mmlens.sweep.record import SweepError

ONE: dict[str, Any] = {"max_new_tokens": 1}
OTHER = mm.Neuron(2, 7)


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


def test_the_planted_neuron_is_the_first_of_the_list_that_finds_it_and_nothing_else_is_lost(model):
    out = summary(ask(silenced_lists, model, SAMPLES, ks=(1,), **ONE))
    lost = {"list": GRADIENT, "k": 1, "metric": "lost"}
    assert mean_of(out, **lost, arm="first") > 0.8
    assert abs(mean_of(out, **lost, arm="others")) < 0.1
    row = {"list": GRADIENT, "k": 1, "arm": "first"}
    assert mean_of(out, **row, metric="says") == 1  # its row is the word's
    assert mean_of(out, **row, metric="upper") == (PLANTED.layer >= model.cfg.n_layers // 2)


def test_a_given_list_is_silenced_as_an_edit_silences_it_and_may_be_one_for_each_noun(model):
    sample = SAMPLES[0]
    seen: Any = explain(model, sample, **ONE)
    house = {"house": ["L0.1"]}
    given = {"both": [str(PLANTED), str(OTHER)], "each": {seen.noun: [str(OTHER)], **house},
             "none": house}  # fmt: skip
    table: Any = silenced_lists(model, sample, given=given, ks=(1, 5), **ONE)
    for name, units in (("both", [PLANTED, OTHER]), ("each", [OTHER])):
        edited = model.edit(*(mm.Edit("neurons", 0.0, unit) for unit in units))
        with torch.no_grad():
            prob = float(edited(seen.soft)[0, -1].softmax(-1)[seen.token])
        row = table[(table["list"] == name) & (table["arm"] == "first") & (table["k"] == 5)].iloc[0]
        assert row["probability"] == pytest.approx(prob, abs=1e-6)
        assert row["units"] == len(units)  # a shorter list is silenced whole
    assert set(table["list"]) == {*LISTS, "both", "each"}


def test_shares_of_units_are_those_of_the_list_and_others_have_its_layers(model):
    sample = SAMPLES[1]
    seen: Any = explain(model, sample, **ONE)
    table: Any = silenced_lists(model, sample, ks=(3, 8), drawn=2, **ONE)
    scores = mm.contributions(model, seen.soft, seen.token, after="")
    best: Any = mm.top_neurons(scores, 8).neuron
    said = mm.decode(model, list(best)[:3], 10)
    own = model.to_string(torch.tensor([seen.token]))
    here = table[table["list"] == CONTRIBUTIONS]
    first = here[here["arm"] == "first"].set_index("k")
    assert first.loc[3, "says"] == pytest.approx(said["words"].map(lambda w: own in w).mean())
    assert pd.isna(first.loc[8, "says"])  # of the shortest alone
    half = model.cfg.n_layers // 2
    assert first.loc[8, "upper"] == pytest.approx((best.map(lambda n: n.layer) >= half).mean())
    others = here[(here["arm"] == "others") & (here["k"] == 8)]
    assert len(others) == 2 and set(others["upper"]) == {first.loc[8, "upper"]}


def test_lists_of_the_pool_are_those_of_the_two_methods(model):
    prompts = [mm.Prompt(one.image, "A picture of") for one in SAMPLES]
    found = mm.modality_importance(model, prompts, metrics=["mean", "max", "attended"])
    table: Any = mm.modality_neurons(found, 12).sort_values("score", ascending=False)
    share = 12 / (model.cfg.n_layers * model.cfg.d_mlp)
    given = pool_lists(model, SAMPLES, share=share, prompt="A picture of")
    assert given[MODALITY] == list(dict.fromkeys(map(str, table.neuron)))
    assert DOMAIN not in given  # all have the same thing
    cats = [type(one)(f"cat-{one.id}", one.image, one.captions, (type(one.things[0])("cat"),))
            for one in SAMPLES[2:]]  # fmt: skip
    two: Any = pool_lists(model, [*SAMPLES[:2], *cats], share=share, prompt="A picture of")
    domains = {"dog": prompts[:2], "cat": prompts[2:]}
    rows = mm.domain_neurons(mm.active_share(model, domains, pos=mm.Patch), share=1.0)
    for domain in rows["domain"].unique():
        assert two[DOMAIN][domain] == list(map(str, rows[rows["domain"] == domain]["neuron"]))


PICTURES = [f"s{i}" for i in range(12)]


def planted(loss: dict[tuple[str, str], float], says: float = 0.5, upper: float = 0.5) -> Any:
    """A table of pictures whose noun loses a known share, a little more or less in each."""
    noise = torch.Generator().manual_seed(0)
    little = lambda: 0.03 * float(torch.rand((), generator=noise))  # noqa: E731
    rows = [
        {"sample": one, "noun": "dog", "list": name, "arm": arm, "k": 100, "units": 100,
         "before": 0.5, "probability": 0.5 * (1 - lost) + little(),
         "says": (says if arm == "first" else 0.2) + little(),
         "upper": (upper if arm == "first" else 0.5) + little()}
        for (name, arm), lost in loss.items() for one in PICTURES
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(skipped="", options="{}")


def verdict(key: str, table: Any) -> bool | None:
    how: Any = {"draws": 200, "seed": 0}
    return judged(key, table, summary(table, **how), **how).verdict.holds  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "name"), [("P1", CONTRIBUTIONS), ("T1", T_NEURONS), ("M1", MODALITY)]
)
@pytest.mark.parametrize(("first", "others", "holds"), [(0.6, 0.1, True), (0.1, 0.6, False)])
def test_what_is_needed_is_lost_beyond_others(key, name, first, others, holds):
    table = planted({(name, "first"): first, (name, "others"): others})
    assert verdict(key, table) is holds
    assert verdict(key, table[table["sample"].isin(PICTURES[:7])]) is None


@pytest.mark.parametrize(("lost", "holds"), [(0.0, True), (0.4, False)])
def test_what_can_be_spared_loses_less_than_a_tenth(lost, holds):
    assert verdict("D1", planted({(DOMAIN, "first"): lost, (DOMAIN, "others"): 0.0})) is holds


@pytest.mark.parametrize(("own", "active", "holds"), [(0.6, 0.2, True), (0.2, 0.6, False)])
def test_contributions_are_judged_against_activity(own, active, holds):
    names = {CONTRIBUTIONS: own, ACTIVE: active}
    table = planted({(name, arm): lost if arm == "first" else 0.0 for name, lost in names.items()
                     for arm in ("first", "others")})  # fmt: skip
    assert verdict("P2", table) is holds


@pytest.mark.parametrize(
    ("key", "share", "holds"),
    [("P3", 0.6, True), ("P3", 0.05, False), ("P4", 0.8, True), ("P4", 0.3, False)],
)
def test_shares_of_the_list_are_judged_against_others_and_against_a_half(key, share, holds):
    loss = {(CONTRIBUTIONS, "first"): 0.5, (CONTRIBUTIONS, "others"): 0.0}
    assert verdict(key, planted(loss, says=share, upper=share)) is holds


def test_a_list_that_no_picture_has_is_not_measured():
    table = planted({(CONTRIBUTIONS, "first"): 0.5, (CONTRIBUTIONS, "others"): 0.0})
    found = summary(table, draws=50)
    part = judged("D1", table, found, draws=50, seed=0)
    assert part.verdict is not None and part.verdict.holds is None
    assert "Not measured" in part.says


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path, monkeypatch):
    tmp_path = tmp_path / "new"  # a folder that is not there yet
    samples = Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")
    how: Any = {"pool": 2, "ks": (2,), "draws": 50, "progress": False, **ONE}
    report = neurons.reproduce(model, samples, tmp_path, command="mmlens reproduce neurons", **how)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert not any(
        one in (True, False) for one in report.verdicts["holds"]
    )  # two pictures decide nothing
    text, page = report.results.read_text(), report.page.read_text()
    assert "`mmlens reproduce neurons`" in text and "MINER" in page and CONTRIBUTIONS in text
    found = all_judged(report.contests).set_index("method")
    told = report.sections[0].summary.query(f"metric == 'lost' and list == '{CONTRIBUTIONS}'")
    told = told.set_index("arm")["mean"]
    assert set(found.index) <= {*LISTS, MODALITY, DOMAIN}
    assert found.loc[CONTRIBUTIONS, "mean"] == told["first"]
    assert found.loc[CONTRIBUTIONS, "control mean"] == told["others"]
    assert found.loc[CONTRIBUTIONS, "gap"] == told["first - others"]
    made = json.loads((tmp_path / "lists.json").read_text())["lists"]
    assert len(made[MODALITY]) > 2
    answers = (tmp_path / "sweeps").rglob("*.parquet")
    before = {file: file.stat().st_mtime_ns for file in answers}
    assert before
    with monkeypatch.context() as patch:  # it goes on with its own lists, whatever the machine
        patch.setattr(neurons_report, "pool_lists", lambda *args, **kwargs: {MODALITY: ["L0.0"]})
        neurons.reproduce(model, samples, tmp_path, **how)
        with pytest.raises(SweepError):
            neurons.reproduce(model, samples, tmp_path, **{**how, "prompt": "I see"})
    assert json.loads((tmp_path / "lists.json").read_text())["lists"] == made
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())
    with pytest.raises(SweepError):
        neurons.reproduce(model, samples, tmp_path, **{**how, "ks": (3,)})
    with pytest.raises(ExperimentError, match="pool=4 takes all 4 pictures"):
        neurons.reproduce(model, samples, tmp_path, **{**how, "pool": 4})
