"""Mllama: words that read the patches of tiles by gated cross-attention, against its own class."""

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
from mmlens.families.native import SINCE
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.reading import see
from mmlens.values.errors import PromptError
from mmlens.values.labels import Marker

WIDE, WORDS, LAYER = (60, 40), "A picture of", 1


@cache
def parts() -> tuple[Any, Any, HookedVLM]:
    import transformers

    if Version(transformers.__version__) < Version(SINCE["mllama"]):
        pytest.skip("read with a later transformers")
    whole, processor = twin("mllama")
    return whole, processor, mm.from_model(whole, processor, name="mllama")


def prompt(size: tuple[int, int] = WIDE, words: str = WORDS, seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(*size, seed), words)


@torch.no_grad()
def theirs(one: mm.Prompt, model: Any = None) -> torch.Tensor:
    whole, _, hooked = parts()
    return (model or whole)(**hooked.prompt_reader.inputs(one)).logits


@torch.no_grad()
def test_logits_are_the_classs_with_all_points_hooked_with_two_pictures_and_in_batches():
    model = parts()[2]
    one = prompt()
    assert off(model.run_with_cache(one)[0], theirs(one)) < 1e-5
    between = mm.Prompt("Look", photo(*WIDE), photo(40, 72, 1), "Both show", template=False)
    assert off(model(between), theirs(between)) < 1e-5
    batch = [prompt(), prompt((40, 72), "What is this?", 1)]
    together = model(batch)
    for row, alone in zip(together, batch, strict=True):
        own = model(alone)[0]
        assert off(row[-len(own) :], own) < 1e-5
    with pytest.raises(PromptError, match="one by one"):
        model([between, prompt()])
    assert off(model(mm.Prompt("A dog")), theirs(mm.Prompt("A dog"))) < 1e-5


def test_generation_is_the_classs_own_with_a_cache_and_without():
    whole, _, model = parts()
    inputs = model.prompt_reader.inputs(prompt())
    plain = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    truth = whole.generate(**inputs, **plain)[:, inputs["input_ids"].shape[1] :]
    options = {"stop_at_eos": False, "return_type": "tokens"}
    for cached in (True, False):
        said = model.generate(prompt(), 8, use_past_kv_cache=cached, **options)
        assert torch.equal(said, truth)
    edited = model.edit(mm.Edit("cross_k", 0.5, layer=LAYER, key=mm.Patch(1, 1, 0, 1)))
    said = [edited.generate(prompt(), 5, use_past_kv_cache=cached) for cached in (True, False)]
    assert said[0] == said[1]


@torch.no_grad()
def test_patterns_go_from_words_to_the_patches_of_tiles():
    whole, _, model = parts()
    pattern = mm.activations(model, prompt(), "cross_pattern", layer=LAYER)
    labels = model.read(prompt()).picture_keys.labels[0]
    assert pattern.axes == ("head", "query", "key") and pattern.of("key") == labels
    assert len(labels) == 4 * 17
    assert sum(isinstance(one, mm.Patch) for one in labels) == 4 * 16
    assert isinstance(labels[17], Marker) and labels[18] == mm.Patch(0, 0, 0, 1)
    kept: list[Any] = []
    module = whole.model.language_model.layers[LAYER].cross_attn
    handle = module.register_forward_hook(lambda m, args, out: kept.append(out[1]))
    whole.set_attn_implementation("eager")
    theirs(prompt())
    handle.remove()
    assert off(pattern.values, kept[0][0]) < 1e-5
    small = model.read(prompt((32, 32))).picture_keys.labels[0]
    assert sum(isinstance(one, mm.Patch) for one in small) == 16
    narrow = mm.activations(model, prompt((32, 32)), "cross_pattern", layer=LAYER, query=-1)
    empty = [i for i, one in enumerate(small) if getattr(one, "name", "") == "empty"]
    assert float(narrow.values[:, empty].abs().max()) == 0.0


@torch.no_grad()
def test_a_knocked_out_picture_is_a_layer_that_reads_nothing():
    whole, _, model = parts()
    keys = model.read(prompt()).picture_keys.labels[0]
    cut = model.edit(patching.knockout(list(keys), slice(None), across=True))
    deaf = copy.deepcopy(whole)
    deaf.model.language_model.layers[LAYER].cross_attn.o_proj.weight.zero_()
    assert off(cut(prompt()), theirs(prompt(), deaf)) < 1e-5
    assert off(model(prompt()), theirs(prompt(), deaf)) > 1e-3
    found = patching.knockouts(
        model, prompt(), lambda logits: logits[5], {"tile": ([mm.Patch(0, 0, 0, 1)], -1)}
    )
    assert found.shape == (1,)


@torch.no_grad()
def test_gates_are_read_and_what_is_written_is_gated():
    whole, _, model = parts()
    block = whole.model.language_model.layers[LAYER]
    gates = model.lm.crossing.gates[LAYER]
    assert gates["attention"] == pytest.approx(float(block.cross_attn_attn_gate.tanh()))
    assert gates["mlp"] == pytest.approx(float(block.cross_attn_mlp_gate.tanh()))
    wrote = mm.activations(model, prompt(), "cross_attn_out", layer=LAYER).values
    before = mm.activations(model, prompt(), "resid_pre", layer=LAYER).values
    after = mm.activations(model, prompt(), "resid_mid", layer=LAYER).values
    assert off(after - before, wrote) < 1e-5
    row = patching.written_by(model, mm.Neuron(LAYER, 3)).values
    assert off(row, gates["mlp"] * block.mlp.down_proj.weight[:, 3]) < 1e-5
    silent = model.edit(mm.Edit("cross_attn_out", 0.0, layer=LAYER))
    deaf = copy.deepcopy(whole)
    deaf.model.language_model.layers[LAYER].cross_attn_attn_gate.zero_()
    assert off(silent(prompt()), theirs(prompt(), deaf)) < 1e-5


def test_shares_of_a_logit_cuts_among_words_and_paths_pass_the_gated_layer():
    model, one = parts()[2], prompt()
    shares = patching.direct_logits(model, one, 5)
    assert "cross 1" in shares.of("part") and "attn 1" not in shares.of("part")
    total = float(shares.values.sum()) + shares.about["bias"]
    with torch.no_grad():
        assert total == pytest.approx(float(model(one)[0, -1, 5]), abs=1e-3)
    assert patching.direct_logits(model, one, 5, by="head").of("layer") == (0, 2)
    logit = lambda logits: logits[5]  # noqa: E731
    cut = patching.knockouts(model, one, logit, {"first": ([1], -1)})
    with torch.no_grad():
        truth = float(model.edit(patching.knockout([1], -1, [0, 2]))(one)[0, -1, 5])
    assert float(cut.values[0]) == pytest.approx(truth, abs=1e-5)
    pair = patching.Pair(one, prompt(seed=1))
    paths = patching.path_patching(model, pair, logit, [mm.Neuron(1, 4)])
    assert bool(torch.isfinite(paths.values).all())


def test_a_prompt_of_words_alone_is_read_by_verbs():
    model, one = parts()[2], mm.Prompt("A dog")
    assert mm.logit_lens(model, one, [5], pos=-1).of("layer")
    assert mm.attribute(model, one, 5, after="", point="post").of("layer")
    assert mm.activations(model, one, "resid_post").of("layer")


def test_gradient_times_key_is_the_finite_difference_and_reaches_the_pixels():
    model = parts()[2]
    scores = mm.attribute(model, prompt(), 5, after="", site="cross_k", layer=[LAYER])
    best = scores.sum("dim").sum("head").sel(layer=LAYER)
    patch = best.of("key")[int(best.values.abs().argmax())]
    with torch.no_grad():
        moved = [
            float(model.edit(mm.Edit("cross_k", lambda x, by=by: x * by, layer=LAYER, key=patch))(
                prompt())[0, -1, 5]) for by in (1.01, 0.99)
        ]  # fmt: skip
    score = float(best.sel(key=patch).values)
    assert (moved[0] - moved[1]) / 0.02 == pytest.approx(score, rel=0.05, abs=1e-4)
    pixels = mm.attribute_picture(model, prompt(), 5, after="", at="pixels")
    assert torch.isfinite(pixels.values).all() and float(pixels.values.abs().max()) > 0


@torch.no_grad()
def test_a_painted_square_changes_the_key_whose_box_it_is():
    model, picture = parts()[2], photo(*WIDE)
    labels = model.image_reader.labels(model.vision, picture, 0)
    plain = see(model, [mm.Prompt(picture)])[0]
    for at in (1, 6, 22, 37):
        patch = labels[at]
        assert isinstance(patch, mm.Patch)
        painted = picture.copy()
        box = model.image_reader.box(model.vision, patch, *WIDE)
        painted.paste((255, 0, 255), tuple(round(edge) for edge in box))
        change = (see(model, [mm.Prompt(painted)])[0] - plain).norm(dim=-1)
        same = [i for i, one in enumerate(labels) if getattr(one, "crop", -1) == patch.crop]
        patches = [i for i in same if isinstance(labels[i], mm.Patch)]
        assert max(patches, key=lambda i: float(change[i])) == at
