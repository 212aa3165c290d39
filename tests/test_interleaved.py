"""IDEFICS: words that read latents in gated layers between the others, against its own class."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from bridges import off
from native_twins import photo, twin
from packaging.version import Version

import mmlens as mm
from mmlens import patching
from mmlens.doctor.live_bytes import LiveBytes
from mmlens.families.native import SINCE
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.labels import Marker

WIDE, GATED = (60, 40), (0, 3)
"""Layers as they run: two gated ones, each before two of the class's own four."""


@cache
def parts() -> tuple[Any, Any, HookedVLM]:
    import transformers

    if Version(transformers.__version__) < Version(SINCE["idefics"]):
        pytest.skip("read with a later transformers")
    whole, processor = twin("idefics")
    return whole, processor, mm.from_model(whole, processor, name="idefics")


def prompt(size: tuple[int, int] = WIDE, words: str = "A picture of", seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(*size, seed), words)


def several() -> mm.Prompt:
    """Words before, between and behind two pictures."""
    return mm.Prompt("Look", photo(*WIDE), "and", photo(40, 72, 1), "Both show", template=False)


@torch.no_grad()
def theirs(one: mm.Prompt, model: Any = None) -> torch.Tensor:
    whole, _, hooked = parts()
    return (model or whole)(**hooked.prompt_reader.inputs(one)).logits


@torch.no_grad()
def test_logits_are_the_classs_with_all_points_hooked_with_several_pictures_and_with_none():
    model = parts()[2]
    for one in (prompt(), prompt((40, 72)), several(), mm.Prompt("A dog")):
        assert off(model.run_with_cache(one)[0], theirs(one)) < 1e-5
    assert off(model(prompt()), model(prompt(seed=1))) > 1e-3


@torch.no_grad()
def test_a_padded_batch_gives_the_numbers_of_its_prompts_alone():
    model = parts()[2]
    batch = [prompt(), several(), prompt((40, 72), "What is this?", 1)]
    for row, alone in zip(model(batch), batch, strict=True):
        own = model(alone)[0]
        assert off(row[-len(own) :], own) < 1e-5


def test_generation_is_the_classs_own_with_a_cache_and_without():
    whole, _, model = parts()
    one = several()
    inputs = model.prompt_reader.inputs(one)
    plain = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    truth = whole.generate(**inputs, **plain)[:, inputs["input_ids"].shape[1] :]
    options = {"stop_at_eos": False, "return_type": "tokens"}
    for cached in (True, False):
        said = model.generate(one, 20, use_past_kv_cache=cached, **options)
        assert torch.equal(said, truth)
    edited = model.edit(mm.Edit("cross_k", 0.5, layer=3, key=Marker("query", 1)))
    said = [edited.generate(prompt(), 6, use_past_kv_cache=cached) for cached in (True, False)]
    assert said[0] == said[1]
    assert model.generate(one, 6, num_beams=2) == model.generate([one, prompt()], 6, num_beams=2)[0]


@torch.no_grad()
def test_each_position_reads_the_last_picture_before_it_and_the_first_words_none():
    whole, _, model = parts()
    one = several()
    pattern = mm.activations(model, one, "cross_pattern", layer=3)
    labels, tokens = pattern.of("key"), model.to_str_tokens(one)
    assert labels == tuple(Marker("query", n, image) for image in (0, 1) for n in range(4))
    first, second = (at for at, token in enumerate(tokens) if token == "<image>")
    seen = pattern.values.sum(0) > 0  # [query, key]
    for at in range(first, len(tokens)):
        image = int(at >= second)
        assert seen[at].tolist() == [label.image == image for label in labels]
    wrote = mm.activations(model, one, "cross_attn_out", layer=3).values
    assert float(wrote[:first].abs().max()) == 0.0 and float(wrote[first:].abs().min()) > 0.0
    kept: list[Any] = []
    module = whole.model.gated_cross_attn_layers[1].cross_attn
    handle = module.register_forward_hook(lambda m, args, out: kept.append(out[1]))
    whole.set_attn_implementation("eager")
    theirs(one)
    handle.remove()
    assert off(pattern.values[:, first:], kept[0][0][:, first:]) < 1e-5


@torch.no_grad()
def test_a_knocked_out_picture_is_a_gate_of_zero_and_cuts_among_words_act():
    whole, _, model = parts()
    keys = list(model.read(prompt()).picture_keys.labels[0])
    cut = model.edit(patching.knockout(keys, slice(None), across=True))
    silent = model.edit(mm.Edit("cross_attn_out", 0.0, layer=list(GATED)))
    shut = copy.deepcopy(whole)
    for layer in shut.model.gated_cross_attn_layers:
        layer.alpha_cross_attn.zero_()
    truth = theirs(prompt(), shut)
    assert off(cut(prompt()), truth) < 1e-5 and off(silent(prompt()), truth) < 1e-5
    assert off(model(prompt()), truth) > 1e-3
    logit = lambda logits: logits[5]  # noqa: E731
    routes = {"latent": ([keys[2]], -1), "words": ([1], -1)}
    found = patching.knockouts(model, prompt(), logit, routes).values
    for value, edit in zip(found, (
        patching.knockout([keys[2]], -1, across=True),
        patching.knockout([1], -1, layer=[1, 2, 4, 5]),
    ), strict=True):  # fmt: skip
        assert float(value) == pytest.approx(float(model.edit(edit)(prompt())[0, -1, 5]), abs=1e-5)
        assert abs(float(value) - float(model(prompt())[0, -1, 5])) > 1e-4


@torch.no_grad()
def test_gates_are_read_and_units_of_gated_layers_write_by_them():
    whole, _, model = parts()
    for at, layer in enumerate(GATED):
        block, gates = whole.model.gated_cross_attn_layers[at], model.lm.crossing.gates[layer]
        assert gates["attention"] == pytest.approx(float(block.alpha_cross_attn.tanh()))
        row = patching.written_by(model, mm.Neuron(layer, 3)).values
        assert off(row, float(block.alpha_dense.tanh()) * block.mlp.down_proj.weight[:, 3]) < 1e-5
    own = whole.model.layers[2].mlp.down_proj.weight[:, 3]  # behind the second gated layer
    assert off(patching.written_by(model, mm.Neuron(4, 3)).values, own) < 1e-6


def test_silencing_a_planted_unit_moves_the_logit_by_its_score():
    whole, processor, model = parts()
    planted, one = copy.deepcopy(whole), prompt()
    with torch.no_grad():
        read = model.run_with_cache(one)[1]["blocks.3.mlp.hook_in"][0, -1]
        mlp = planted.model.gated_cross_attn_layers[1].mlp
        mlp.gate_proj.weight[7] = mlp.up_proj.weight[7] = read / read.norm()
        mlp.down_proj.weight[:, 7] = planted.lm_head.weight[5]
    model = mm.from_model(planted, processor)
    scores = mm.attribute(model, one, 5, after="", point="post")
    last = scores.sel(pos=-1, layer=3).values
    assert int(last.abs().argmax()) == 7
    shrunk = model.edit(mm.Edit("neurons", lambda x: x * 0.99, mm.Neuron(3, 7), pos=-1))
    with torch.no_grad():
        moved = float(model(one)[0, -1, 5].double() - shrunk(one)[0, -1, 5].double())
    assert moved / 0.01 == pytest.approx(float(last[7]), rel=0.05)


def test_shares_of_a_logit_and_patched_paths_add_up_over_gated_layers():
    model, one = parts()[2], prompt()
    shares = patching.direct_logits(model, one, 5)
    assert "cross 0" in shares.of("part") and "attn 0" not in shares.of("part")
    total = float(shares.values.sum()) + shares.about["bias"]
    assert total == pytest.approx(shares.about["logit"], abs=1e-3)
    with torch.no_grad():
        assert total == pytest.approx(float(model(one)[0, -1, 5]), abs=1e-3)
    assert patching.direct_logits(model, one, 5, by="head").of("layer") == (1, 2, 4, 5)
    units = patching.direct_logits(model, one, 5, by="neuron")
    part = float(shares.sel(part="mlp 3").values)
    assert float(units.sel(layer=3).values.sum()) == pytest.approx(part, abs=1e-4)
    pair = patching.Pair(one, prompt(seed=1))
    logit = lambda logits: logits[5]  # noqa: E731
    paths = patching.path_patching(model, pair, logit, [mm.Head(1, 0), mm.Neuron(3, 4)])
    assert bool(torch.isfinite(paths.values).all())


def test_gradients_are_finite_differences_and_reach_the_pixels():
    model = parts()[2]
    scores = mm.attribute(model, prompt(), 5, after="", site="cross_k", layer=list(GATED))
    best = scores.sum("dim").sum("head").sel(layer=3)
    key = best.of("key")[int(best.values.abs().argmax())]
    with torch.no_grad():
        moved = [
            float(model.edit(mm.Edit("cross_k", lambda x, by=by: x * by, layer=3, key=key))(
                prompt())[0, -1, 5]) for by in (1.01, 0.99)
        ]  # fmt: skip
    score = float(best.sel(key=key).values)
    assert (moved[0] - moved[1]) / 0.02 == pytest.approx(score, rel=0.05, abs=1e-4)
    pixels = mm.attribute_picture(model, prompt(), 5, after="", at="pixels")
    assert torch.isfinite(pixels.values).all() and float(pixels.values.abs().max()) > 0


@torch.no_grad()
def test_patching_reuses_what_does_not_change_and_is_the_edit():
    from mmlens.causal.prefix_reuse import BOTH, measured

    model = parts()[2]
    assert measured(model) == BOTH
    pair = patching.Pair(prompt(), prompt(seed=1))
    found = patching.patch(model, pair, lambda logits: logits[5], site="resid_pre")
    clean = mm.activations(model, pair.clean, "resid_pre", layer=4)
    value = clean.sel(pos=-2).values
    edited = model.edit(mm.Edit("resid_pre", value, layer=4, pos=-2))
    truth = float(edited(pair.corrupt)[0, -1, 5])
    assert float(found.sel(layer=4, pos=-2).values) == pytest.approx(truth, abs=1e-5)


def test_latents_lie_nowhere_and_a_model_without_a_perceiver_is_refused():
    import transformers as hf

    whole, processor, model = parts()
    with pytest.raises(AddressError, match="lies nowhere in it"):
        model.image_reader.box(model.vision, mm.Patch(0, 0), *WIDE)
    config = copy.deepcopy(whole.config)
    config.use_resampler = False
    with pytest.raises(CapabilityError, match="has no perceiver"):
        mm.from_model(hf.IdeficsForVisionText2Text(config), processor)


def test_a_plan_is_what_a_forward_pass_takes(tmp_path):
    whole, _, model = parts()
    whole.config.save_pretrained(tmp_path)
    soft = model.read(mm.Prompt(photo(60, 40), "A picture of " * 20))
    plan = mm.plan(tmp_path, n_pos=soft.ids.shape[1])
    weights = [*model.root.parameters(), *model.root.buffers()]
    with torch.no_grad(), LiveBytes(*weights) as forward:
        model(soft)
    assert 0.7 < plan.forward / forward.peak < 1.4
