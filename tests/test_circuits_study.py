"""Circuits silenced and kept as edits do it, graphs checked node by node; claims of tables."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge
from native_twins import photo, twin
from test_experiments import PLANTED, SAMPLES, mean_of
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.datasets.sample import Sample, Samples
from mmlens.papers import circuits
from mmlens.papers.circuits.circuits_claims import (
    CLAIMS,
    circuit_part,
    circuit_parts,
    contests,
    graph_parts,
)
from mmlens.papers.circuits.questions.graphs import (
    AS_ACTIVE,
    NODE,
    agreements,
    completeness,
    graph_nodes,
    taken,
)
from mmlens.papers.circuits.questions.pruning import (
    CIRCUIT,
    FIRST,
    FIRST_OTHERS,
    OTHERS,
    pruned_circuit,
    summary,
)
from mmlens.papers.contests import judged
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import ask
from mmlens.sweep import sweeping
from mmlens.sweep.record import SweepError
from mmlens.values.errors import CapabilityError

ONE: dict[str, Any] = {"max_new_tokens": 1}
FEW: dict[str, Any] = {"ks": (2, 24), **ONE}
"""Of 128 units of a layer: the planted one is among 24, and not among two."""


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


def test_a_circuit_is_silenced_and_kept_as_edits_do_it(model):
    table: Any = pruned_circuit(model, SAMPLES[0], **FEW)
    seen: Any = explain(model, SAMPLES[0], **ONE)
    edges: Any = mm.visual_circuit(model, seen.soft, seen.token, k=2, after="")
    own = list(dict.fromkeys(edges.source))
    others = [mm.Neuron(layer, unit) for layer in range(model.cfg.n_layers)
              for unit in range(model.cfg.d_mlp) if mm.Neuron(layer, unit) not in own]  # fmt: skip

    def prob(units: list[mm.Neuron]) -> float:
        silent = model.edit(*(mm.Edit("neurons", 0.0, [one for one in units if one.layer == at])
                              for at in range(model.cfg.n_layers)))  # fmt: skip
        with torch.no_grad():
            return float(silent(seen.soft)[0, -1].softmax(-1)[seen.token])

    row = table[(table["arm"] == CIRCUIT) & (table["k"] == 2)].iloc[0]
    assert row["units"] == len(own) == 2 * model.cfg.n_layers
    assert row["probability"] == pytest.approx(prob(own), abs=1e-6)
    assert row["alone"] == pytest.approx(prob(others), abs=1e-6)
    with torch.no_grad():
        whole = float(model(seen.soft)[0, -1].softmax(-1)[seen.token])
    assert table["before"].tolist() == pytest.approx([whole] * len(table), abs=1e-6)
    sizes: Any = table.groupby(["arm", "k"]).size()
    assert sizes[CIRCUIT, 2] == sizes[FIRST, 2] == 1 and sizes[OTHERS, 2] == 3
    assert sizes[FIRST_OTHERS, 2] == 3


def test_the_word_needs_the_circuit_that_has_the_planted_unit_and_no_other(model):
    seen: Any = explain(model, SAMPLES[0], **ONE)
    has = {k: PLANTED in set(mm.visual_circuit(model, seen.soft, seen.token, k=k, after="").source)
           for k in (2, 24)}  # fmt: skip
    assert has == {2: False, 24: True}
    out = summary(ask(pruned_circuit, model, SAMPLES, **FEW))
    for arm, k in ((CIRCUIT, 24), (FIRST, 24), (FIRST, 2)):
        assert mean_of(out, arm=arm, k=k, metric="lost") > 0.8
        assert mean_of(out, arm=arm, k=k, metric="kept") > 0.8
    for arm, k in ((CIRCUIT, 2), (OTHERS, 24)):
        assert mean_of(out, arm=arm, k=k, metric="lost") < 0.5
    assert mean_of(out, arm=CIRCUIT, k=2, metric="kept") < 0.3
    assert mean_of(out, arm=f"{CIRCUIT} - {OTHERS}", k=24, metric="kept") > 0.3


PICTURES = [f"s{i}" for i in range(12)]


def pruned(lost: dict[str, float], kept: dict[str, float]) -> pd.DataFrame:
    """A table of pictures whose noun loses and keeps known shares, a little more or less."""
    noise = torch.Generator().manual_seed(0)
    little = lambda: 0.03 * float(torch.rand((), generator=noise))  # noqa: E731
    rows = [
        {"sample": one, "noun": "dog", "arm": arm, "k": k, "units": 8 * k, "before": 0.5,
         "probability": 0.5 * (1 - lost[arm]) + little(), "alone": 0.5 * kept[arm] + little()}
        for one in PICTURES for arm in lost for k in (5, 25)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(skipped="", options="{}")


@pytest.mark.parametrize(
    ("own", "others", "first", "holds"),
    [(0.6, 0.1, 0.3, (True, True)), (0.1, 0.4, 0.7, (False, False))],
)
def test_circuits_are_judged_against_others_and_against_attribution(own, others, first, holds):
    arms = {CIRCUIT: own, OTHERS: others, FIRST: first, FIRST_OTHERS: 0.0}
    parts, found = circuit_parts(pruned(arms, arms), draws=200, seed=0)
    told = {part.key: part.verdict.holds for part in parts if part.verdict}
    assert told == {"V1": holds[0], "V2": holds[0], "V3": holds[1]}
    few: Any = pruned(arms, arms)
    few = summary(few[few["sample"].isin(PICTURES[:7])], draws=200)
    assert circuit_part("V1", few).verdict.holds is None  # type: ignore[union-attr]
    nothing = graph_rows(0.0).iloc[:0]
    needed, alone = contests(found, nothing)
    beats: Any = judged(needed).set_index("method")["beats"]
    assert beats.to_dict() == {CIRCUIT: holds[0], FIRST: True}
    assert judged(alone).set_index("method").loc[CIRCUIT, "control mean"] == pytest.approx(
        others, abs=0.07
    )


def test_a_layer_that_has_too_few_others_is_not_measured(model):
    """Circuits of all units of a layer leave none to be drawn."""
    table = ask(pruned_circuit, model, SAMPLES[:1], ks=(model.cfg.d_mlp,), **ONE)
    assert OTHERS not in set(table["arm"])
    part = circuit_part("V1", summary(table, draws=50))
    assert "Not measured" in part.says and part.verdict is not None and part.verdict.holds is None


# -- graphs ----------------------------------------------------------------------------------------


def test_nodes_of_a_graph_are_those_of_its_check(model):
    table: Any = graph_nodes(model, SAMPLES[0], k=8, checked=4, **ONE)
    seen: Any = explain(model, SAMPLES[0], **ONE)
    graph = mm.attribution_graph(model, seen.soft, seen.token, after="", k=8)
    right: Any = mm.check_graph(graph, model, seen.soft, k=4)
    mine, theirs = (one[one["arm"] == "graph"].set_index("node") for one in (table, right))
    assert list(mine.index) == list(theirs.index) and len(mine) > 2
    for name in ("effect", "ablation"):
        assert mine[name].to_numpy() == pytest.approx(theirs[name].to_numpy(), abs=1e-5)
    with torch.no_grad():
        logit = float(model(seen.soft)[0, -1, seen.token])
    assert table["logit"].iloc[0] == pytest.approx(logit, abs=1e-4)
    rows: Any = ask(graph_nodes, model, SAMPLES[:1], k=8, checked=4, **ONE)
    assert completeness(rows)["value"].tolist() == [pytest.approx(graph.completeness)]


def graph_rows(sign: float, random: float = 0.1) -> pd.DataFrame:
    """Graphs of pictures whose nodes take what they say, or the opposite, and a little noise."""
    noise = np.random.default_rng(0)
    rows = []
    for one in PICTURES:
        for node in range(6):
            effect = float(node + 1)
            took = sign * effect + float(noise.normal())
            rows.append((one, f"n{node}", "graph", effect, took))
            rows.append((one, f"n{node}", "random", np.nan, random * (1 + float(noise.random()))))
    columns = ["sample", "node", "arm", "effect", "ablation"]
    more: Any = {"noun": "dog", "completeness": 0.5, "logit": 10.0, "skipped": "", "options": "{}"}
    return pd.DataFrame(rows, columns=columns).assign(**more)


@pytest.mark.parametrize(("sign", "holds"), [(1.0, True), (-1.0, False)])
def test_graphs_are_judged_by_the_order_of_what_their_nodes_take(sign, holds):
    part = graph_parts(graph_rows(sign), draws=200, seed=0)[0]
    assert part.verdict is not None and part.verdict.holds is holds
    assert "complete to 0.50" in part.says


@pytest.mark.parametrize(("random", "holds"), [(0.1, True), (30.0, False)])
def test_units_of_a_graph_are_judged_against_units_as_active(random, holds):
    table = graph_rows(1.0, random)
    part = graph_parts(table, draws=200, seed=0)[1]
    assert part.verdict is not None and part.verdict.holds is holds
    arms = {CIRCUIT: 0.5, OTHERS: 0.1, FIRST: 0.5, FIRST_OTHERS: 0.1}
    found = summary(pruned(arms, arms), draws=50)
    assert judged(contests(found, table)[-1])["beats"].tolist() == [holds]


def test_rank_correlations_are_those_of_ranks_and_shuffled_ones_are_about_0():
    table: Any = graph_rows(1.0)
    found = agreements(table)
    by: Any = found.pivot(index="sample", columns="arm", values="value")
    for one in PICTURES:
        own = table[(table["sample"] == one) & (table["arm"] == "graph")]
        ranks = own[["effect", "ablation"]].rank()
        assert by.loc[one, "graph"] == pytest.approx(np.corrcoef(ranks.T)[0, 1])
    assert abs(by["shuffled nodes"].mean()) < 0.2 < by["graph"].mean()
    sizes: Any = taken(table).groupby("arm")["value"].mean()
    own = table[table["arm"] == "graph"]["ablation"].abs().mean() / 10
    assert sizes[NODE] == pytest.approx(own) and sizes[AS_ACTIVE] < 0.03


def test_a_model_that_has_no_graph_is_told_in_a_sentence_and_circuits_stay(model, monkeypatch):
    from mmlens.papers.circuits.questions import graphs

    def refused(*args: Any, **kwargs: Any) -> None:
        raise CapabilityError("It is a mixture of experts.")

    monkeypatch.setattr(graphs, "attribution_graph", refused)
    table = ask(graph_nodes, model, SAMPLES[:2], **ONE)
    assert set(table["skipped"]) == {"It is a mixture of experts."}
    parts = graph_parts(table, draws=50, seed=0)
    assert all("mixture of experts" in part.says for part in parts)


# -- the study -------------------------------------------------------------------------------------


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path, monkeypatch):
    out = tmp_path / "new"  # a folder that is not there yet
    samples = Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")
    asked: list[str] = []
    real = sweeping._Work._ask

    def counted(self, place, count):
        asked.append(self.samples.ids[place])
        return real(self, place, count)

    monkeypatch.setattr(sweeping._Work, "_ask", counted)
    how: Any = {"ks": (2,), "nodes": 6, "checked": 3, "draws": 50, "progress": False, **ONE}
    report = circuits.reproduce(model, samples, out, command="mmlens reproduce x", **how)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert not any(one in (True, False) for one in report.verdicts["holds"])  # of four pictures
    text = report.results.read_text()
    assert "`mmlens reproduce x`" in text and "G2" in report.page.read_text()
    assert len(asked) == 2 * len(SAMPLES) and len(report.contests) == 3
    asked.clear()
    again = circuits.reproduce(model, samples, out, command="mmlens reproduce x", **how)
    assert not asked and again.results.read_text() == text
    with pytest.raises(SweepError):
        circuits.reproduce(model, samples, out, **{**how, "ks": (3,)})


def test_the_study_runs_on_a_native_model(tmp_path):
    native: Any = mm.from_model(*twin("llava"))
    pictures = [Sample(f"p{i}", photo(seed=i)) for i in range(3)]
    samples = Samples("photos", [one.id for one in pictures], pictures.__getitem__, "photos")
    how: Any = {"ks": (2,), "nodes": 6, "checked": 3, "draws": 50, "max_new_tokens": 4,
                "noun": "content", "progress": False}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = circuits.reproduce(native, samples, tmp_path / "new", **how)
    assert len(report.verdicts) == 5
    assert "of the noun's probability are lost" in report.results.read_text()


def test_the_command_prints_the_claims(tmp_path):
    asked = ["reproduce", "circuits", "--model", "toy-gptj-planted", "--data", "pictos:held_out:1",
             "--out", str(tmp_path / "new"), "--draws", "50", "--json"]  # fmt: skip
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["experiment"] for one in told["claims"]] == list(CLAIMS)
