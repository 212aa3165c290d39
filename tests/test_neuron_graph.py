"""From a word over neurons to units of the encoder: each edge is a derivative, and was checked."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import mmlens as mm
from mmlens import Neuron, view
from mmlens.cli.app import app
from mmlens.families import toy
from mmlens.papers.goh.questions.feeding import ARMS, fed_verdict, feeding
from mmlens.values.errors import AddressError

PROMPT = mm.Prompt(toy.picture((1, 1)), "A picture of")
ROOT = Path(__file__).parents[1]
WORD = {"of": " dog", "after": " a"}


@pytest.fixture(scope="module")
def bridge():
    return mm.load("toy-gptj")


@pytest.fixture(scope="module")
def table(bridge):
    return mm.neuron_graph(bridge, PROMPT, **WORD, k=2, units=3)


def of_neurons(table):
    return table[[isinstance(one, Neuron) for one in table["target"]]]


def activation(model, neuron, pos) -> float:
    found = mm.activations(model, PROMPT, "neurons", neuron)
    return found.sel(pos=pos).item()


def unit_of(source) -> int:
    return source.unit if isinstance(source, Neuron) else int(str(source).split()[1])


def test_a_graph_has_the_word_its_neurons_and_their_units(table):
    into_word = table[table["target"] == " dog"]
    assert sum(isinstance(one, Neuron) and one.tower == "lm" for one in into_word["source"]) == 2
    assert len(of_neurons(table)) == 6 and set(table.attrs["words"])
    units = {str(one) for one in of_neurons(table)["source"]}
    assert units <= {str(one) for one in into_word["source"]}  # all routes to the word, too


def test_an_edge_is_the_derivative_and_its_ablation_is_done(bridge, table):
    h = 1e-2
    for row in of_neurons(table).to_dict("records"):
        unit, whole = unit_of(row["source"]), activation(bridge, row["target"], row["pos"])
        ends = [
            activation(
                bridge.edit(mm.Edit("features", lambda x, s=s: x * (1 + s), dim=unit)),
                row["target"], row["pos"],
            )
            for s in (h, -h)
        ]  # fmt: skip
        slope = (ends[0] - ends[1]) / (2 * h)
        assert row["score"] == pytest.approx(slope, rel=0.05, abs=2e-5)
        off = activation(bridge.edit(mm.Edit("features", 0.0, dim=unit)), row["target"], row["pos"])
        assert row["ablation"] == pytest.approx(whole - off, abs=1e-6)


def test_edges_of_a_picture_in_tiles_are_derivatives_over_all_of_them():
    tiled = mm.load("toy-tiled")
    table = mm.neuron_graph(tiled, PROMPT, " dog", after="", k=1, units=2)
    test_an_edge_is_the_derivative_and_its_ablation_is_done(tiled, table)
    assert isinstance(table.iloc[0]["pos"], mm.Patch)


def test_the_ablation_of_a_neuron_is_what_the_words_logit_loses(bridge, table):
    row = table.iloc[0]
    token = bridge.to_single_token(" dog")
    logits = [
        model(PROMPT + " a")[0, -1, token].detach()
        for model in (bridge, bridge.edit(mm.Edit("neurons", 0.0, row["source"], pos=row["pos"])))
    ]
    assert row["ablation"] == pytest.approx(float(logits[0] - logits[1]), abs=1e-5)


def test_the_only_unit_that_the_projection_reads_is_the_one_that_feeds(bridge):
    weight = torch.zeros_like(bridge.projection.weight.detach())
    weight[:, 5] = torch.linspace(-1, 1, len(weight))
    one = mm.from_parts(bridge.vision, {"weight": weight, "bias": torch.zeros(len(weight))},
                        bridge.lm.hf, bridge.tokenizer)  # fmt: skip
    found = of_neurons(mm.neuron_graph(one, PROMPT, **WORD, k=1, units=2))
    assert unit_of(found["source"].iloc[0]) == 5 and found["score"].iloc[0] != 0
    assert found["score"].iloc[1] == 0 and found["ablation"].iloc[1] == 0


def test_chosen_neurons_are_asked_about_and_those_of_the_encoder_refused(bridge):
    chosen = [Neuron(0, 3)]
    found = mm.neuron_graph(bridge, PROMPT, **WORD, neurons=chosen, units=1)
    assert found["source"].iloc[0] == chosen[0] and len(found) == 3
    with pytest.raises(AddressError, match="no neuron of the language model"):
        mm.neuron_graph(bridge, PROMPT, **WORD, neurons=[Neuron(0, 3, "vision")])


def test_the_graph_is_drawn_in_columns_from_units_to_the_word(table):
    figure = view.show(table)
    nodes = figure.data[-1]
    where = dict(zip(nodes.text, nodes.x, strict=True))
    neurons = [str(one) for one in dict.fromkeys(of_neurons(table)["target"])]
    assert where["\u00b7dog"] == 2.0 and all(where[one] == 1.0 for one in neurons)
    lines = [one for one in figure.data if one.mode == "lines"]
    assert len(lines) == 8 and any("silencing it takes" in one.hovertemplate for one in lines)
    widths = [one.line.width for one in lines]
    assert max(widths) == pytest.approx(6.5)
    circle = pd.DataFrame({"source": ["a", "b"], "target": ["b", "a"], "score": [1.0, 1.0]})
    with pytest.raises(AddressError, match="circle"):
        view.graph(circle)
    with pytest.raises(AddressError, match="more edges|edges are more"):
        view.graph(pd.concat([table] * 40))


# -- the study -------------------------------------------------------------------------------------


def answers(multimodal: float, active: float, n: int = 20) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for thing in range(n):
        for _ in range(2):
            before = rng.uniform(1, 2)
            for arm, mean in zip(ARMS, (multimodal, active, 0.1), strict=True):
                after = before * (1 - mean - 0.1 * rng.normal())
                rows.append({"concept": thing, "arm": arm, "before": before, "after": after})
    return pd.DataFrame(rows)


def test_the_verdict_is_that_of_the_interval():
    assert fed_verdict(answers(0.6, 0.2))[0].holds is True
    assert fed_verdict(answers(0.1, 0.5))[0].holds is False
    assert fed_verdict(answers(0.3, 0.3))[0].holds is None
    nothing, summary = fed_verdict(pd.DataFrame(columns=["arm", "before", "after"]))
    assert nothing.holds is None and summary is None
    verdict, summary = fed_verdict(answers(0.6, 0.2))
    assert "over 40 pictures of 20 things" in verdict.says
    assert summary.loc["multimodal - as active", "mean"] == pytest.approx(0.4, abs=0.1)


def test_the_card_of_the_bridge_says_what_the_committed_table_gives():
    """The table is what `mmlens reproduce goh --feeding --model pictos-clip-bridge` wrote."""
    verdict, summary = fed_verdict(pd.read_csv(ROOT / "training/pictos_clip/logs/feeding.csv"))
    card = (ROOT / "mmlens/pictos_clip_bridge/MODEL_CARD.md").read_text()
    assert f"It **{verdict.word}** over all things" in card
    for row in summary.itertuples():
        numbers = (row.low, row.mean, row.high)
        low, mean, high = (f"{value:.2f}".replace("0.", ".") for value in numbers)
        assert f"{mean} [{low}, {high}] |\n" in card, row


def test_the_study_silences_as_many_units_in_every_arm():
    found = feeding(mm.load("pictos"), ["koala", "dog"], each=4, k=3, neurons=30)
    assert len(found) and len(found) % 3 == 0
    assert set(found["n_units"]) == {3} and (found["before"] > 0).all()
    assert list(found["arm"][:3]) == list(ARMS)


def test_the_command_writes_the_table_of_its_verdict(tmp_path, monkeypatch):
    module = importlib.import_module("mmlens.papers.goh.questions.feeding")
    monkeypatch.setattr(module, "feeding", lambda model, things, **_: answers(0.6, 0.2))
    asked = ["reproduce", "goh", "--feeding", "--model", "pictos", "--concepts", "3"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path)])
    assert done.exit_code == 0 and "M18 holds" in done.output, done.output
    again = fed_verdict(pd.read_csv(tmp_path / "feeding.csv"))[0]
    assert again.says in done.output
