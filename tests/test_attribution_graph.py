"""Attribution graphs: sums are exact, linear models are explained exactly, planted paths found."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge, prompt
from native_twins import twin
from torch import nn

import mmlens as mm
from mmlens import Neuron, Patch, patching, relevance, view
from mmlens.methods.attribution_graph import _place
from mmlens.methods.check_graph import correlation
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    CheckpointError,
    SiteError,
)
from mmlens.values.graph_flow import flow, most_of
from mmlens.values.labels import Marker

WORD: dict[str, Any] = {"of": 7, "after": ""}
ALL: dict[str, Any] = {"share": 1.0, "edges": 1.0, "k": 1000}
AT = (1, 1)
FEW = 3
"""Units per layer that are not silenced where a graph is to have all nodes."""


def exact(kind: str, units: int | None = None) -> Any:
    """A toy in float64, with so many units per layer."""
    model = copy.deepcopy(bridge(f"toy-{kind}")).to(torch.float64)
    if units is None:
        return model
    return model.edit(mm.Edit("neurons", 0.0, unit=slice(units, None)))


def rounding(model: Any) -> float:
    """How exact a toy in float64 is: norms of Llama's kind compute in float32."""
    return (
        1e-5
        if any(name in type(model.lm.hf).__name__ for name in ("Llama", "Llava", "Gemma"))
        else 1e-9
    )


def logit(model: Any, at: Any = None) -> float:
    with torch.no_grad():
        return float(model.run(at or prompt(AT))[0, -1, WORD["of"]])


def entering(graph: mm.AttributionGraph) -> Any:
    """The nodes that are reached, each with the sum of what enters it."""
    sums = graph.edges.groupby("target")["score"].sum()
    nodes = graph.nodes[graph.nodes["node"].isin(sums.index)]
    return nodes.assign(sum=sums[nodes["node"]].to_numpy())


def holds(graph: mm.AttributionGraph, model: Any, at: Any = None) -> None:
    """What enters each node is its value, which is that of a plain run; shares and effects add."""
    reached, off = entering(graph), rounding(model)
    assert reached["sum"].to_numpy() == pytest.approx(reached["value"].to_numpy(), abs=off)
    units = graph.units()
    assert set(units["node"]) <= set(reached["node"]) and len(units)
    for row in units.head(8).itertuples():
        read = mm.activations(model, at or prompt(AT), row.neuron)
        assert float(read.sel(pos=row.pos).values) == pytest.approx(row.value, abs=off)
    number = float(graph.nodes["value"][graph.nodes["kind"] == "word"].iloc[0])
    assert number == pytest.approx(logit(model, at), abs=off)
    assert float(graph.ends()["influence"].sum()) == pytest.approx(1, abs=1e-9)
    assert float(graph.ends()["effect"].sum()) == pytest.approx(number, abs=10 * off)
    assert graph.nodes["node"].is_unique


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt-neox", "llama", "gemma"])
def test_what_enters_each_node_sums_to_its_activation_exactly(kind):
    model = exact(kind)
    graph = mm.attribution_graph(model, prompt(AT), **WORD, k=24, share=1.0)
    holds(graph, model)
    assert 0 < graph.completeness < 1 and len(graph.units()) == 24


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_with_all_nodes_it_is_complete_and_agrees_with_relevance_propagation(kind):
    """The sum over all paths is what LRP hands down in one pass, with patterns held."""
    model = exact(kind, FEW)
    graph = mm.attribution_graph(model, prompt(AT), **WORD, **ALL)
    holds(graph, model)
    assert graph.completeness == pytest.approx(1, abs=1e-12)
    found = relevance.lrp(model, prompt(AT), **WORD, rule="cp")
    inputs = graph.nodes[graph.nodes["kind"] == "input"].set_index("pos")["effect"]
    by_graph = [inputs.get(label, 0.0) for label in found.of("pos")]
    assert by_graph == pytest.approx(found.values.tolist(), abs=10 * rounding(model))
    assert found.values.abs().max() > 1e-3


def test_an_edge_into_the_word_is_the_direct_share_of_its_logit():
    model = exact("gpt2")
    graph = mm.attribution_graph(model, prompt(AT), **WORD, share=1.0, edges=1.0, k=80)
    shares = patching.direct_logits(model, prompt(AT), WORD["of"], by="neuron").sel(layer=2).values
    into = graph.edges[graph.edges["target"].str.strip() == graph.about["of"].strip()]
    last = into.merge(graph.units(), left_on="source", right_on="node")
    last = last[[one.layer == 2 for one in last["neuron"]]]
    assert len(last) > 5
    for row in last.itertuples():
        assert row.score == pytest.approx(float(shares[row.neuron.unit]), abs=1e-6)


def linear() -> Any:
    """GPT-2 with linear activations, uniform patterns and norms of constant scale; in float64."""
    plain = bridge("toy-gpt2")
    hf = copy.deepcopy(plain.lm.hf).to(torch.float64)
    d = hf.config.n_embd
    for block in hf.transformer.h:
        block.mlp.act = nn.Identity()
        with torch.no_grad():
            block.attn.c_attn.weight[:, :d] = 0
            block.attn.c_attn.bias[:d] = 0
    eye = copy.deepcopy(plain.vision).to(torch.float64)
    given = {"weight": plain.projection.weight.double(), "bias": plain.projection.bias.double()}
    model = mm.from_parts(eye, given, hf, plain.tokenizer)
    model = model.edit(mm.Edit("neurons", 0.0, unit=slice(FEW, None)))
    for name in [one for one in model.hook_dict if one.endswith("hook_scale")]:
        model.add_hook(name, lambda x, hook: torch.full_like(x, 2.0))
    return model


def test_on_a_linear_model_effects_are_what_ablation_takes():
    model = linear()
    graph = mm.attribution_graph(model, prompt(AT), **WORD, **ALL)
    holds(graph, model)
    checked: Any = mm.check_graph(graph, model, prompt(AT), k=30)
    own = checked[checked["arm"] == "graph"]
    assert own["ablation"].tolist() == pytest.approx(own["effect"].tolist(), abs=1e-9)
    assert own["ablation"].abs().max() > 1e-3 and len(own) == 30
    assert checked.attrs["summary"].loc["correlation", "value"] == pytest.approx(1, abs=1e-9)
    into = graph.edges[graph.edges["target"] == graph.about["of"]].set_index("source")["score"]
    late = own[[one.layer == 2 for one in own["neuron"]]]  # no node lies between
    assert len(late) and into[late["node"]].tolist() == pytest.approx(late["ablation"].tolist())


def test_the_planted_path_leads_from_the_white_patch_over_its_neuron_to_the_word():
    model = bridge("toy-gptj-planted")
    graph = mm.attribution_graph(model, prompt(AT), " dog", after=" a")
    best: Any = graph.units().iloc[0]
    assert best["neuron"] == Neuron(1, 5) and best["pos"] == Patch(*AT)
    assert best["influence"] > 0.9 and "dog" in best["words"].split()
    fed = graph.edges[(graph.edges["target"] == best["node"])]
    fed = fed[~fed["source"].isin(["biases", "left out"])]
    assert fed.sort_values("influence").iloc[-1]["source"] == str(Patch(*AT))
    assert graph.completeness > 0.8
    small = graph.pruned(nodes=0.5, edges=0.8)
    assert set(small.nodes["kind"]) == {"word", "unit", "input", "biases", "left out"}
    assert len(small.units()) == 1 and small.completeness < graph.completeness


def test_its_nodes_do_more_than_units_as_active_and_as_predicted():
    model = bridge("toy-gptj-planted")
    graph = mm.attribution_graph(model, prompt(AT), " dog", after=" a", k=8)
    checked: Any = mm.check_graph(graph, model, prompt(AT))
    own, others = (checked[checked["arm"] == arm] for arm in ("graph", "random"))
    assert len(own) == len(others) == len(graph.units())
    assert not set(zip(others["neuron"], others["pos"], strict=True)) & set(
        zip(own["neuron"], own["pos"], strict=True)
    )
    first = own.iloc[0]
    silent = model.edit(mm.Edit("neurons", 0.0, first["neuron"], pos=first["pos"]))
    ids = prompt(AT) + " a"
    with torch.no_grad():
        lost = [
            float(one.run(ids)[0, -1, model.to_single_token(" dog")]) for one in (model, silent)
        ]
    assert first["ablation"] == pytest.approx(lost[0] - lost[1], abs=1e-4)
    assert first["ablation"] == pytest.approx(first["effect"], rel=0.1)
    summary = checked.attrs["summary"]
    assert summary.loc["correlation", "value"] > 0.9
    assert summary.loc["graph", "value"] > 10 * summary.loc["random", "value"]
    layers = [(a.layer, b.layer) for a, b in zip(own["neuron"], others["neuron"], strict=True)]
    assert all(a == b for a, b in layers)
    with pytest.raises(ArgumentError, match="give the prompt and the model"):
        mm.check_graph(graph, model, prompt((3, 3), "this is"))


def test_units_of_the_encoder_are_nodes_before_the_projection():
    model = exact("gpt2")
    sites = ["neurons", "vision.neurons"]
    graph = mm.attribution_graph(
        model, prompt(AT), **WORD, sites=sites, k=120, share=1.0, edges=1.0
    )
    holds(graph, model)
    towers = {one.tower for one in graph.units()["neuron"]}
    assert towers == {"lm", "vision"}
    crossing = graph.edges.merge(graph.nodes, left_on="source", right_on="node")
    crossing = crossing[[getattr(one, "tower", "") == "vision" for one in crossing["neuron"]]]
    assert any(name.startswith("L") for name in crossing["target"])
    starts = graph.nodes[graph.nodes["kind"] == "input"]["pos"]
    assert {type(one) for one in starts} >= {Patch, mm.Token}


def test_a_native_model_has_a_graph_of_both_towers():
    model = mm.from_model(*twin("llava")).to(torch.float64)
    at = prompt(AT, words="a")
    graph = mm.attribution_graph(
        model, at, **WORD, sites=["neurons", "vision.neurons"], k=60, share=1.0
    )
    holds(graph, model, at)


# -- dictionaries ----------------------------------------------------------------------------------


def dictionary(n: int = 48, **more: Any) -> mm.Dictionary:
    draw = torch.Generator().manual_seed(len(more))
    weight = lambda *shape: torch.randn(*shape, generator=draw).double() / shape[0] ** 0.5  # noqa: E731
    given = {"b_enc": weight(n), "b_dec": weight(32), "b_in": weight(32)} | more
    return mm.Dictionary(weight(32, n), weight(n, 32), **given)


@pytest.mark.parametrize("norm", ["none", "layer_norm", "unit_norm"])
def test_dictionaries_and_transcoders_of_several_layers_are_one_graph_with_their_errors(norm):
    plain = exact("gpt2")
    reads, writes = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
    model = (
        plain.attach(dictionary(norm=norm, k=12), at="blocks.0.hook_resid_post")
        .attach(dictionary(at=reads, out=writes, W_skip=torch.eye(32).double() / 4))
        .attach(dictionary(threshold=0.1), at="blocks.2.hook_resid_post")
    )
    graph = mm.attribution_graph(model, prompt(AT), **WORD, k=150, share=1.0, edges=1.0)
    holds(graph, model)
    assert {str(one).split(".")[1] for one in graph.units()["neuron"]} == {"L0", "L1", "L2"}
    ends = graph.ends()["influence"]
    assert graph.completeness == ends["input"] and ends["error"] > 0.1
    stream = graph.nodes[graph.nodes["kind"] == "error"]
    row = stream[stream["stage"] == stream["stage"].max()].iloc[0]
    checked: Any = mm.check_graph(graph, model, prompt(AT), k=60)
    assert set(checked[checked["arm"] == "random"]["neuron"].map(lambda one: one.tower)) == {"sae"}
    at = checked["node"] == row["node"]
    silent = model.edit(mm.Edit("sae_error", 0.0, layer=2, pos=row["pos"]))
    lost = logit(model) - logit(silent)
    assert at.sum() == 1 and float(checked["ablation"][at].iloc[0]) == pytest.approx(lost, abs=1e-9)


def test_the_planted_unit_of_a_transcoder_is_found():
    """Unit 7 reads what the planted neuron reads, and writes what it writes."""
    model = bridge("toy-gptj-planted")
    mlp = model.root.blocks[1].mlp
    W_enc, W_dec, b_enc = torch.zeros(32, 40), torch.zeros(40, 32), torch.zeros(40)
    W_enc[:, 7], W_dec[7] = mlp.W_in[:, 5].detach(), mlp.W_out[5].detach()
    b_enc[7] = mlp.b_in[5].detach()
    one = mm.Dictionary(W_enc, W_dec, b_enc=b_enc)
    held = model.attach(one, at="blocks.1.ln1.hook_normalized", out="blocks.1.hook_mlp_out")
    graph = mm.attribution_graph(held, prompt(AT), " dog", after=" a")
    best: Any = graph.units().iloc[0]
    assert best["neuron"] == Neuron(1, 7, "sae") and best["pos"] == Patch(*AT)
    assert best["influence"] > 0.5  # the rest of the MLP is its error
    sources = graph.edges[graph.edges["target"] == best["node"]]
    sources = sources[~sources["source"].isin(["biases", "left out"])]
    assert sources.sort_values("influence").iloc[-1]["source"] == str(Patch(*AT))


# -- the value -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> mm.AttributionGraph:
    return mm.attribution_graph(bridge("toy-gptj-planted"), prompt(AT), " dog", after=" a", k=20)


def test_no_two_positions_of_a_prompt_share_a_name():
    model = mm.load("toy-tiled")
    labels = [*model.one(prompt()).labels[0], Marker("cls", 0), Marker("cls", 0, 1)]
    assert sum(isinstance(one, Marker) for one in labels) > 4  # ends of rows
    names = [_place(one) for one in labels]
    assert len(set(names)) == len(names)


def test_influence_is_that_of_the_sum_over_all_paths():
    rng, n = np.random.default_rng(0), 7
    score = np.triu(rng.normal(size=(n, n)), 1) * (rng.random((n, n)) < 0.8)
    score[:, n - 1] = rng.normal(size=n) * (np.arange(n) < n - 1)
    source, target = np.nonzero(score)
    found = flow(source, target, score[source, target], abs(score[source, target]),
                 np.arange(n), n - 1)  # fmt: skip
    into = np.abs(score).sum(0)
    A = np.abs(score) / np.where(into > 0, into, 1)
    paths = np.linalg.inv(np.eye(n) - A)[:, n - 1]
    assert found.influence == pytest.approx(paths)
    starts = into == 0
    assert found.influence[starts].sum() == pytest.approx(1)
    value = score.sum(0)
    B = score / np.where(value != 0, value, 1)
    effect = np.linalg.inv(np.eye(n) - B)[:, n - 1] * value[n - 1]
    assert found.effect == pytest.approx(effect)


def test_the_fewest_entries_that_have_a_share():
    amount = np.array([0.1, 0.5, 0.0, 0.4])
    assert most_of(amount, 0.5).tolist() == [False, True, False, False]
    assert most_of(amount, 0.6).tolist() == [False, True, False, True]
    assert most_of(amount, 1.0).tolist() == [True, True, False, True]
    assert not most_of(amount, 0.0).any()


def test_pruning_keeps_sums_and_nothing_pruned_is_the_same(graph):
    same = graph.pruned()
    assert same.completeness == pytest.approx(graph.completeness)
    assert len(same.edges) == len(graph.edges) and len(same.nodes) == len(graph.nodes)
    before = entering(graph).set_index("node")["sum"]
    sizes = []
    for share in (0.99, 0.9, 0.6):
        small = graph.pruned(nodes=share, edges=share)
        after = entering(small).set_index("node")["sum"]
        assert after.to_numpy() == pytest.approx(before[after.index].to_numpy(), abs=1e-6)
        assert float(small.ends()["influence"].sum()) == pytest.approx(1)
        sizes.append((len(small.units()), small.completeness))
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ArgumentError, match="nodes=2"):
        graph.pruned(nodes=2.0)


def test_a_saved_graph_is_read_back_with_its_provenance(graph, tmp_path):
    again = mm.AttributionGraph.load(graph.save(tmp_path / "dog"))
    pd.testing.assert_frame_equal(again.nodes, graph.nodes)
    pd.testing.assert_frame_equal(again.edges, graph.edges)
    assert again.about["method"] == "attribution_graph" and again.about["model"]
    assert repr(again) == repr(graph)
    model = bridge("toy-gptj-planted")
    assert len(mm.check_graph(again, model, prompt(AT), k=1)) == 2
    (tmp_path / "dog" / "edges.csv").unlink()
    with pytest.raises(CheckpointError, match="saved AttributionGraph"):
        mm.AttributionGraph.load(tmp_path / "dog")


def test_a_graph_is_drawn_in_columns_of_layers(graph):
    figure: Any = view.show(graph)
    nodes = figure.data[-1]
    where = dict(zip(nodes.text, nodes.x, strict=True))
    assert where["\u00b7dog"] == max(nodes.x) and where["L1.5 (1, 1)"] == max(nodes.x) - 1
    assert where["(1, 1)"] == 0
    lines = [one for one in figure.data if one.mode == "lines"]
    assert 5 < len(lines) <= 60 and max(one.line.width for one in lines) == pytest.approx(6.6)
    few: Any = view.graph(graph, k=2, title="Two")
    assert "Two" in few.layout.title.text and len(few.data) <= 3
    nothing = graph.pruned(nodes=0.0, edges=0.0)
    with pytest.raises(AddressError, match="no edge leads to the word"):
        view.graph(nothing)


def test_a_difference_of_logits_is_explained_as_one_number():
    model = exact("llama")
    graph = mm.attribution_graph(model, prompt(AT), 7, minus=9, after="", k=4)
    with torch.no_grad():
        row = model.run(prompt(AT))[0, -1]
    value = graph.nodes["value"][graph.nodes["kind"] == "word"].iloc[0]
    assert value == pytest.approx(float(row[7] - row[9]), abs=1e-9)
    checked: Any = mm.check_graph(graph, model, prompt(AT), k=2)
    assert checked["ablation"].notna().all()


def test_a_graph_is_not_checked_on_a_model_of_other_edits(graph):
    """Also where the edit changes the word's number by nothing: others answer when it is gone."""
    model = bridge("toy-gptj-planted")
    still = model.edit(mm.Edit("neurons", lambda x: x * 1.0, Neuron(0, 0)))
    with pytest.raises(ArgumentError, match="made with other edits or dictionaries"):
        mm.check_graph(graph, still, prompt(AT))
    again = mm.attribution_graph(still, prompt(AT), " dog", after=" a", k=2)
    assert len(mm.check_graph(again, still, prompt(AT), k=1))
    with pytest.raises(ArgumentError, match="made with other edits or dictionaries"):
        mm.check_graph(again, model, prompt(AT))


def test_a_graph_without_nodes_says_so(graph):
    assert repr(graph.pruned(edges=0.0)).startswith("AttributionGraph(no nodes; ")


def test_the_whole_word_has_room_beside_its_node(graph):
    longer = replace(graph, nodes=graph.nodes.replace({"node": {" dog": " strawberries"}}),
                     edges=graph.edges.replace({"target": {" dog": " strawberries"}}))  # fmt: skip
    figures: list[Any] = [view.graph(one) for one in (graph, longer)]
    short, long = (figure.layout.margin.r for figure in figures)
    assert long - short >= 6 * (len(" strawberries") - len(" dog")) and short >= 6 * 4


def test_what_has_no_graph_is_refused_in_a_sentence():
    model = bridge("toy-llama")
    for sites, kind in (
        (["resid_post"], SiteError),
        (["neurons_pre"], SiteError),
        ([], ArgumentError),
        (["sae"], SiteError),
    ):
        with pytest.raises(kind):
            mm.attribution_graph(model, prompt(AT), **WORD, sites=sites)
    bent = model.edit()
    bent.add_hook("blocks.0.hook_mlp_out", lambda x, hook: x + 3 * x.exp())
    with pytest.raises(CapabilityError, match="does not sum to its value"):
        mm.attribution_graph(bent, prompt(AT), **WORD)
    crossing = bridge("toy-cross")
    with pytest.raises(CapabilityError, match="every picture among the positions"):
        mm.attribution_graph(crossing, prompt(AT), **WORD)


def test_the_correlation_of_pairs_and_its_interval():
    x = np.arange(8.0)
    assert correlation(np.stack([x, 2 * x + 1], 1))[0] == pytest.approx(1)
    noisy = np.stack([x, x + np.random.default_rng(0).normal(size=8) * 3], 1)
    value, low, high = correlation(noisy)
    known: Any = np.corrcoef(noisy.T)
    assert value == pytest.approx(known[0, 1]) and low < value < high
    assert np.isnan(correlation(np.ones((5, 2)))[0]) and np.isnan(correlation(noisy[:3])[1])
