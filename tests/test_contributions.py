"""Contribution scores: they add up to what the MLP writes, and silencing a unit takes its score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import KINDS, bridge, off, prompt

import mmlens as mm
from mmlens.families import toy
from mmlens.methods.text_neurons import minmax
from mmlens.values.errors import AddressError, TargetError

WORD = 7


def column(model: Any, word: int) -> torch.Tensor:
    return model.lm.word_directions([word])[:, 0].float()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_layer_and_its_bias_sum_to_what_the_mlp_writes_towards_the_word(kind):
    model = bridge(f"toy-{kind}")
    found = mm.contributions(model, prompt(), WORD, after="")
    assert found.axes == ("layer", "unit")
    wrote = mm.activations(model, prompt(), "mlp_out", pos=-1).values @ column(model, WORD)
    for layer in range(model.cfg.n_layers):
        bias = getattr(model.root.blocks[layer].mlp, "b_out", None)
        rest = 0.0 if bias is None else float(bias @ column(model, WORD))
        assert float(found.sel(layer=layer).values.sum()) + rest == pytest.approx(
            float(wrote[layer]), abs=1e-4
        )


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_silencing_a_unit_of_the_last_layer_takes_its_score_from_the_stream_before_the_norm(kind):
    model = bridge(f"toy-{kind}")
    found = mm.contributions(model, prompt(), WORD, after="")
    last = model.cfg.n_layers - 1
    for unit in (3, 11, 40):
        silent = model.edit(mm.Edit("neurons", 0.0, mm.Neuron(last, unit), pos=-1))
        before, after = (
            mm.activations(one, prompt(), "resid_post", layer=last, pos=-1).values
            for one in (model, silent)
        )
        score = found.sel(layer=last, unit=unit).item()
        assert float((before - after) @ column(model, WORD)) == pytest.approx(score, abs=1e-5)


def test_the_final_norm_is_what_tells_them_from_direct_logits():
    """Where its gain is 1 and it doesn't centre, all units have one ratio: the norm's scale."""
    model = mm.load("toy-llama", seed=3)
    with torch.no_grad():
        model.lm.hf.model.norm.weight.fill_(1.0)
    ours = mm.contributions(model, prompt(), WORD, after="").values
    shares = mm.patching.direct_logits(model, prompt(), WORD, by="neuron").values
    gain, _ = model.lm.final_gain
    assert off(gain, torch.ones_like(gain)) < 1e-6
    ratio = shares / ours
    assert float(ratio.std() / ratio.mean()) < 1e-3 and float(ratio.mean()) > 0


def test_a_planted_unit_is_found_first_at_its_patch_and_its_heat_map_peaks_there():
    model = bridge("toy-gptj-planted")
    found = mm.contributions(model, prompt((2, 1)), " dog", after="", pos=mm.Patch)
    best = mm.top_neurons(found, 1).iloc[0]
    assert best["neuron"] == toy.PLANTED and best["patch"] == mm.Patch(2, 1)
    heat = mm.activations(model, prompt((2, 1)), best["neuron"]).sel(pos=mm.Patch)
    assert heat.argmax()["pos"] == mm.Patch(2, 1)
    assert mm.decode(model, best["neuron"]).words[0][0] == " dog"


def test_positions_that_are_named_keep_the_axis_and_one_drops_it():
    model = bridge("toy-gptj")
    every = mm.contributions(model, prompt(), WORD, after="", pos=None)
    labels = model.embed(prompt()).labels[0]
    assert every.axes == ("layer", "pos", "unit") and tuple(every.of("pos")) == labels
    for at in (-1, 3, mm.Patch(1, 2)):
        one = mm.contributions(model, prompt(), WORD, after="", pos=at)
        assert off(one.values, every.sel(pos=at).values) == 0
    both: Any = [WORD, 9]
    several = mm.contributions(model, [prompt(), prompt((0, 0))], both, after="")
    assert several.axes == ("prompt", "token", "layer", "unit")
    assert off(several.values[0, 0], every.sel(pos=-1).values) == 0


def test_text_neurons_are_the_larger_of_two_scales_from_0_to_1():
    model = bridge("toy-gpt2")
    found = mm.text_neurons(model, prompt(), WORD, after="")
    active = mm.activations(model, prompt(), "neurons", pos=-1).values.float()
    table = torch.stack([block.mlp.W_out @ model.W_U[:, WORD] for block in model.root.blocks])
    for layer, (a, w) in enumerate(zip(active, table.detach(), strict=True)):
        p = a * w
        by_hand = torch.maximum((p - p.min()) / (p.max() - p.min()),
                                (a - a.min()) / (a.max() - a.min()))  # fmt: skip
        assert off(found.sel(layer=layer).values, by_hand) < 1e-5
    assert torch.equal(found.max("unit").values, torch.ones(3))
    assert torch.equal(minmax(torch.full((2, 3), 4.0)), torch.zeros(2, 3))


def test_half_of_text_neurons_does_not_depend_on_the_word():
    model = bridge("toy-gpt2")
    strongest = mm.activations(model, prompt(), "neurons", pos=-1).values.argmax(-1)
    for word in (7, 9, 20):
        found = mm.text_neurons(model, prompt(), word, after="").values
        assert torch.allclose(found.gather(1, strongest[:, None]), torch.ones(1))


def test_words_and_positions_that_do_not_exist_are_refused():
    model = bridge("toy-gptj")
    with pytest.raises(TargetError):
        mm.contributions(model, prompt(), " unheard of", after="")
    with pytest.raises(AddressError, match="No pos here is a Patch"):
        mm.contributions(model, mm.Prompt("A picture of"), WORD, after="", pos=mm.Patch)
