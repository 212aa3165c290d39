"""Circuits by cross-layer attribution: finite differences, a planted chain, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from bridges import bridge, prompt
from dual_twins import hf_clip

import mmlens as mm
from mmlens.families import toy
from mmlens.values.errors import AddressError, MMLensError

PHOTO = toy.picture()
TEXT = "a photo of a dog"


@pytest.fixture(scope="module")
def twin() -> Any:
    model, _, tokenizer = hf_clip()
    return model.double(), tokenizer


def clip_of(twin: Any, change: Any = None) -> Any:
    model = copy.deepcopy(twin[0])
    if change is not None:
        with torch.no_grad():
            change(model.vision_model.encoder.layers)
    return mm.from_model(model, None, twin[1])


def moved(model: Any, unit: mm.Neuron, position: int, read: Any, step: float = 1e-4) -> float:
    """a d read / d a of one unit at one position, by scaling it."""
    ends = []
    for by in (1 + step, 1 - step):
        edit = mm.Edit("vision.neurons", lambda x, by=by: x * by, unit, pos=position)
        ends.append(read(model.edit(edit)))
    return (ends[0] - ends[1]) / (2 * step)


def test_every_edge_is_what_scaling_its_source_moves_position_by_position(twin):
    clip = clip_of(twin)
    table = mm.visual_circuit(clip, PHOTO, TEXT, k=2)
    assert list(table.columns) == ["source", "target", "score"] and len(table) == 2 + 4 + 4
    assert [one.layer for one in table.source] == [2] * 2 + [1] * 4 + [0] * 4

    def logit(model: Any) -> float:
        with torch.no_grad():
            return float(model.run(mm.Prompt(PHOTO, TEXT))[0, 0])

    def active(unit: mm.Neuron) -> Any:
        site = "vision.neurons"
        return lambda model: float(mm.activations(model, PHOTO, site, unit).values.sum())

    for row in (table.iloc[0], table.iloc[2], table.iloc[-1]):
        read = active(row.target) if isinstance(row.target, mm.Neuron) else logit
        total = sum(abs(moved(clip, row.source, at, read)) for at in range(17))
        assert row.score == pytest.approx(total, rel=1e-3)


def test_the_units_kept_are_those_of_the_largest_total_to_all_that_were_kept_before(twin):
    clip = clip_of(twin)
    few, all_ = (mm.visual_circuit(clip, [PHOTO], TEXT, k=k, layer=[1, 2]) for k in (3, 40))
    last = all_[all_.target == few.iloc[0].target].set_index("source").score
    kept = list(few.iloc[:3].source)
    assert kept == list(last.sort_values(ascending=False).index[:3])
    # totals to these three alone: their edges are the same in the whole table
    wide = all_[all_.target.isin(kept)].groupby("source").score.sum()
    before = set(few.iloc[3:].source)
    assert before == set(wide.sort_values(ascending=False).index[:3])


def chain(layers: Any) -> None:
    """Unit 7 of layer 0 writes a direction that unit 9 of layer 1 reads, and hardly anything else
    reads or writes anything; unit 11 of layer 2 reads what unit 9 writes.
    """
    for at, layer in enumerate(layers):
        layer.self_attn.out_proj.weight.zero_()
        layer.self_attn.out_proj.bias.zero_()
        layer.mlp.fc2.weight.mul_(1e-3)
        if at:
            layer.mlp.fc1.weight.mul_(1e-3)
    width = layers[0].mlp.fc2.weight.shape[0]
    ways = torch.linalg.qr(torch.randn(width, 2, generator=torch.Generator().manual_seed(3)))[0]
    ways = ways.T.to(layers[0].mlp.fc2.weight)
    layers[0].mlp.fc1.bias[7], layers[1].mlp.fc1.bias[9] = 2.0, 2.0
    layers[0].mlp.fc2.weight[:, 7], layers[1].mlp.fc1.weight[9] = ways[0], ways[0]
    layers[1].mlp.fc2.weight[:, 9], layers[2].mlp.fc1.weight[11] = ways[1], ways[1]
    layers[2].mlp.fc1.bias[11] = 2.0


def test_a_planted_chain_is_the_circuit_of_its_last_unit(twin):
    clip = clip_of(twin, chain)
    table = mm.visual_circuit(clip, [PHOTO, toy.picture((0, 3))], mm.Neuron(2, 11, "vision"), k=1)
    assert list(table.source) == [mm.Neuron(1, 9, "vision"), mm.Neuron(0, 7, "vision")]
    assert list(table.target) == [mm.Neuron(2, 11, "vision"), mm.Neuron(1, 9, "vision")]
    two = mm.visual_circuit(clip, PHOTO, mm.Neuron(2, 11, "vision"), k=2)
    first, second = two[two.source.map(lambda one: one.layer == 1)].score.tolist()
    assert first > 20 * second


def test_examples_are_averaged(twin):
    clip, other = clip_of(twin), toy.picture((0, 3))
    scores = [
        mm.visual_circuit(clip, some, TEXT, k=40, layer=2).set_index("source").score
        for some in (PHOTO, other, [PHOTO, other])
    ]
    assert (scores[2] - (scores[0] + scores[1]) / 2).abs().max() < 1e-9 * scores[2].max()


def test_a_layer_that_is_named_twice_is_one_layer(twin):
    clip = clip_of(twin)
    once, twice = (mm.visual_circuit(clip, PHOTO, TEXT, k=2, layer=at) for at in ([1], [1, 1]))
    assert twice.equals(once) and len(once) == 2


def test_in_a_language_model_the_planted_neuron_is_in_the_circuit_of_its_word():
    model = bridge("toy-gptj-planted")
    table = mm.visual_circuit(model, prompt(), " dog", after="", k=1, layer=1)
    assert table.source[0] == mm.Neuron(1, 5) and str(table.target[0]) == " dog"


def test_channels_of_convolutions_are_units_too():
    clip = mm.load("pictos-clip")
    table = mm.visual_circuit(clip, PHOTO, "a dog", k=2)
    layers = [one.layer for one in table.source]
    assert layers == sorted(layers, reverse=True) and bool((table.score > 0).any())


def test_what_has_nothing_before_it_is_refused(twin):
    clip = clip_of(twin)
    with pytest.raises(AddressError, match="There is no layer before"):
        mm.visual_circuit(clip, PHOTO, mm.Neuron(0, 3, "vision"))
    with pytest.raises(AddressError, match="There is no .*999"):
        mm.visual_circuit(clip, PHOTO, mm.Neuron(2, 999, "vision"))
    with pytest.raises(MMLensError, match="prompts"):
        mm.visual_circuit(clip, [], TEXT)
