"""Small Gemma 4 (E2B, E4B): vectors of each layer for each token, and keys of earlier layers.

In double precision, since attention that divides by nothing loses much to rounding; norms and the
pooler of the class stay in single precision.
"""

from __future__ import annotations

import pytest
import torch
from bridges import off
from native_twins import awake, photo

import mmlens as mm

hf = pytest.importorskip("transformers", minversion="5.24")
WORDS = "A picture of"


def made(**text):
    from newer_twins import gemma4_small

    torch.manual_seed(0)
    whole, processor = gemma4_small(**text)
    whole = awake(whole, 0.06)
    return whole.double(), mm.from_model(whole, processor, name="small", dtype="float64")


@pytest.fixture(scope="module")
def parts():
    return made()


def prompt(size=(60, 40), words: str = WORDS, seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(*size, seed), words)


@torch.no_grad()
def theirs(whole, model, one):
    inputs = model.prompt_reader.inputs(one)
    return whole(**{k: v.double() if v.is_floating_point() else v for k, v in inputs.items()})


@pytest.mark.parametrize("size", [(60, 40), (40, 72), (32, 32)])
@torch.no_grad()
def test_logits_are_those_of_the_class_with_pixels(parts, size):
    whole, model = parts
    one = prompt(size)
    assert off(model(one), theirs(whole, model, one).logits) < 1e-5
    two = mm.Prompt(photo(*size), "and", photo(40, 72, 1), "Both show")
    assert off(model(two), theirs(whole, model, two).logits) < 1e-5
    assert off(model(one), model(prompt(size, seed=1))) > 1e-3


@torch.no_grad()
def test_a_batch_gives_the_numbers_of_its_prompts_alone(parts):
    model = parts[1]
    batch = [prompt(), prompt((40, 72), "What is this?"), mm.Prompt("A dog")]
    for row, one in zip(model(batch), batch, strict=True):
        alone = model(one)[0]
        assert off(row[-len(alone) :], alone) < 1e-5
    assert model.generate(batch, 6) == [model.generate(one, 6) for one in batch]


@torch.no_grad()
def test_cached_generation_is_that_without_a_cache(parts):
    model = parts[1]
    said = [
        model.generate(prompt(), 8, use_past_kv_cache=cached, stop_at_eos=False)
        for cached in (True, False)
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("wide", [False, True])
def test_a_score_is_the_effect_in_every_layer_also_where_later_mlps_are_twice_as_wide(parts, wide):
    model = made(use_double_wide_mlp=True)[1] if wide else parts[1]
    one, step = prompt(), 1e-4
    with torch.no_grad():
        plain = float(model(one)[0, -1, 5])
    for layer in range(4):
        scores = mm.attribute(model, one, 5, after="", point="post", layer=layer)
        assert scores.values.shape[-1] == (128 if wide and layer >= 2 else 64)
        best = mm.top_neurons(scores, 1).iloc[0]
        less = model.edit(mm.Edit("neurons", lambda x: x * (1 - step), best.neuron, pos=best.patch))
        with torch.no_grad():
            moved = (plain - float(less(one)[0, -1, 5])) / step
        assert moved == pytest.approx(float(best.score), rel=0.01, abs=1e-7)


@torch.no_grad()
def test_patching_everything_gives_the_other_run_and_the_last_lens_the_model(parts):
    model = parts[1]
    one, other = prompt(), prompt(seed=1)
    clean = mm.activations(model, one, "resid_post", layer=3)
    assert off(model.edit(mm.Edit("resid_post", clean, layer=3))(other), model(one)) < 1e-5
    lens = mm.logit_lens(model, one, [5], layer=3, pos=-1)
    truth = float(model(one)[0, -1].softmax(-1)[5])
    assert lens.values.item() == pytest.approx(truth, abs=1e-6)
