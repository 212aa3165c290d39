"""Neurons of domains and of modalities: counted as by hand, and a planted one is found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bridges import bridge, off, prompt
from PIL import Image

import mmlens as mm
from mmlens.families import toy
from mmlens.methods.domain_neurons import entropies
from mmlens.methods.modality_neurons import measures
from mmlens.values.errors import AddressError, ArgumentError, PromptError

PLACES = [(2, 1), (0, 3), (1, 1), (3, 0)]


def dark(seed: int) -> mm.Prompt:
    pixels = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(seed)) * 60
    return mm.Prompt(Image.fromarray(pixels.byte().numpy()), "A picture of")


def white() -> list[mm.Prompt]:
    return [prompt(place) for place in PLACES]


def test_shares_are_those_that_are_counted_over_all_positions_together():
    model = bridge("toy-llama")
    domains = {"white": white()[:2], "words": ["A picture of", "the red house"]}
    for point, site in (("pre", "neurons_pre"), ("post", "neurons")):
        found = mm.active_share(model, domains, point=point)
        for name, some in domains.items():
            rows = [mm.activations(model, one, site).values for one in some]
            truth = (torch.cat(rows, 1) > 0).float().mean(1)
            assert off(found.sel(domain=name).values, truth) < 1e-6


def test_the_entropy_is_0_in_one_domain_and_that_of_a_fair_die_in_all():
    shares = torch.tensor([[0.4, 0.2, 0.0, 0.3], [0.0, 0.2, 0.0, 0.1], [0.0, 0.2, 0.0, 0.0]])
    one, all_alike, never, two = entropies(shares).tolist()
    assert one == 0 and all_alike == pytest.approx(math.log(3)) and never == math.inf
    assert two == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def planted(shift: float = 0.0, scale: float = 1.0) -> Any:
    """The toy whose unit fires at a white patch, with another threshold or strength."""
    model = mm.load("toy-gptj-planted")
    mlp = model.lm.hf.transformer.h[toy.PLANTED.layer].mlp
    with torch.no_grad():
        mlp.fc_in.weight[toy.PLANTED.unit] *= scale
        mlp.fc_in.bias[toy.PLANTED.unit] += shift
    return model


def test_a_unit_that_is_planted_for_white_patches_belongs_to_pictures_that_have_one():
    model = planted(shift=-1.0)  # below 0 at all other patches
    domains = {"white": white(), "dark": [dark(seed) for seed in range(4)]}
    shares = mm.active_share(model, domains, pos=mm.Patch)
    table = mm.domain_neurons(shares, share=1.0, quantile=0.0)
    row = table[table.neuron == toy.PLANTED].iloc[0]
    assert row["domain"] == "white" and (row["white"], row["dark"]) == (1 / 16, 0)
    assert row["entropy"] == 0 and list(table.entropy) == sorted(table.entropy)
    assert (table.entropy > math.log(2) - 0.01).sum() > 50  # most others do not care


def test_seldom_active_units_are_left_out_and_the_list_is_as_long_as_asked():
    values = torch.tensor([[0.9, 0.02, 0.5, 0.5], [0.1, 0.0, 0.5, 0.4]])[:, None]
    shares = mm.Scores(values, ("domain", "layer", "unit"),
                       {"domain": ("a", "b"), "layer": (0,)})  # fmt: skip
    units = [one.unit for one in mm.domain_neurons(shares, share=1.0, quantile=0.3).neuron]
    assert units == [0, 3, 2]  # unit 1 has entropy 0, and is on at a fiftieth of positions
    assert len(mm.domain_neurons(shares, share=0.25, quantile=0.3)) == 1


def test_measures_are_sums_over_positions_and_over_those_that_attend():
    g = torch.Generator().manual_seed(0)
    a, A = torch.randn(4, 3, generator=g), torch.rand(4, 4, generator=g).tril()
    found = measures(a, A)
    for unit in range(3):
        by_hand = [sum(A[q, t] * a[t, unit] for q in range(4) for t in range(4)),
                   sum(A[t, k] * a[t, unit] for t in range(4) for k in range(4))]  # fmt: skip
        assert found["attended"][unit] == pytest.approx(float(by_hand[0]), abs=1e-5)
        assert found["attending"][unit] == pytest.approx(float(by_hand[1]), abs=1e-5)


def test_each_measure_is_that_of_the_positions_of_its_modality_on_a_scale_from_0_to_1():
    model, some = bridge("toy-gpt2"), white()[:2]
    found = mm.modality_importance(model, some)
    for name, kind in (("picture", mm.Patch), ("words", mm.Token)):
        rows = [mm.activations(model, one, "neurons", pos=kind).values for one in some]
        at = [model.embed(one).labels[0] for one in some]
        places = [[i for i, label in enumerate(row) if isinstance(label, kind)] for row in at]
        patterns = [
            mm.activations(model, one, "pattern").values.mean(1)[:, spots][:, :, spots]
            for one, spots in zip(some, places, strict=True)
        ]
        truth: dict[str, Any] = {
            "max": sum(row.amax(1) for row in rows),
            "prob": sum((row > 0).float().mean(1) for row in rows),
            "attended": sum(torch.einsum("lqt,ltu->lu", p, r)
                            for p, r in zip(patterns, rows, strict=True)),
        }  # fmt: skip
        for metric, values in truth.items():
            low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
            ours = found.sel(metric=metric, modality=name).values
            assert off(ours, (values - low) / (high - low)) < 1e-4, metric


def test_a_unit_that_is_planted_at_a_patch_is_one_of_the_picture_and_of_no_words():
    model = planted(scale=3.0)
    found = mm.modality_importance(model, white(), metrics=["max"])
    table = mm.modality_neurons(found, 12, weights={"max": 1.0})
    rows = table[table.neuron == toy.PLANTED]
    assert list(rows.modality) == ["picture"] and list(rows.both) == [False]


def test_selections_take_as_many_of_each_modality_and_layer_as_they_say():
    model = bridge("toy-gpt2")
    found = mm.modality_importance(model, white()[:1])
    tables = {how: mm.modality_neurons(found, 12, select=how)
              for how in ("modality", "uniform", "layer", "adaptive")}  # fmt: skip
    assert tables["modality"].groupby("modality").size().to_dict() == {"picture": 6, "words": 6}
    by = tables["uniform"].assign(layer=[one.layer for one in tables["uniform"].neuron])
    assert set(by.groupby(["modality", "layer"]).size()) == {2}
    layers = [one.layer for one in tables["layer"].neuron]
    assert [layers.count(at) for at in range(3)] == [4, 4, 4]
    mixed = torch.einsum("m,mdlu->dlu", torch.tensor([0, 0.25, 0.25, 0.5, 0]), found.values)
    strongest = mixed.amax(0).flatten().topk(12).indices.tolist()
    width = found.shape[-1]
    assert {(one.layer, one.unit) for one in tables["adaptive"].neuron} == {
        divmod(at, width) for at in strongest
    }


def test_a_unit_that_is_strong_everywhere_is_listed_for_both_and_says_so():
    values = torch.rand(1, 2, 1, 20, generator=torch.Generator().manual_seed(0)) / 2
    values[..., 4] = 1.0
    labels = {"metric": ("max",), "modality": ("picture", "words"), "layer": (0,)}
    scores = mm.Scores(values, ("metric", "modality", "layer", "unit"), labels)
    table = mm.modality_neurons(scores, 4, weights={"max": 1.0})
    assert list(table[table.neuron == mm.Neuron(0, 4)].both) == [True, True]


def test_what_has_no_domains_or_no_positions_is_refused():
    model = bridge("toy-gpt2")
    with pytest.raises(ArgumentError, match="give two"):
        mm.active_share(model, {"one": white()})
    with pytest.raises(AddressError, match="No pos here is a Patch"):
        mm.active_share(model, {"a": white(), "b": ["no picture"]}, pos=mm.Patch)
    with pytest.raises(PromptError, match="of the modality 'picture'"):
        mm.modality_importance(model, ["A picture of"])
    scores = mm.modality_importance(model, white()[:1], metrics=["max"])
    with pytest.raises(AddressError, match="There is no measure 'mean'"):
        mm.modality_neurons(scores)
    with pytest.raises(AddressError):
        mm.domain_neurons(scores)
