"""Perceiver IO: latents that read a picture once, against transformers' own classes."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf
from bridges import off
from encoders import shake
from native_twins import photo

import mmlens as mm
from mmlens import patching
from mmlens.families import toy
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import Marker

SIDE = 16
NAMES = ("Learned", "Fourier", "ConvProcessing")
KEYS = {"Learned": (16, 16), "Fourier": (224, 224), "ConvProcessing": (55, 55)}
"""The grid of the input; the sizes of the last two are written into their classes."""
every = pytest.mark.parametrize("name", NAMES)


def twin(name: str, **more: Any) -> Any:
    config = hf.PerceiverConfig(
        num_latents=6, d_latents=16, num_blocks=2, num_self_attends_per_block=2,
        num_self_attention_heads=2, num_cross_attention_heads=1, num_labels=5,
        self_attention_widening_factor=2, cross_attention_widening_factor=2,
        image_size=SIDE if name == "Learned" else 224, attention_probs_dropout_prob=0.0,
        **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return shake(getattr(hf, f"PerceiverForImageClassification{name}")(config))


@cache
def parts(name: str) -> tuple[Any, mm.HookedVisionModel]:
    whole = twin(name)
    model: Any = mm.from_parts(vision=whole, name="perceiver")
    return whole, model


def read(model: Any, seed: int = 0) -> torch.Tensor:
    return model.vision.preprocess(photo(SIDE, SIDE, seed))[None]


@every
@torch.no_grad()
def test_logits_and_patterns_are_the_classs_own(name):
    whole, model = parts(name)
    pixels = read(model)
    out = whole(pixel_values=pixels, output_attentions=True)
    logits, kept = model.run_with_cache(pixels)
    assert off(logits, out.logits) < 1e-5
    for layer, pattern in enumerate([*out.cross_attentions[:1], *out.attentions]):
        kind = "attn" if layer else "cross_attn"  # the stack of two is run twice
        assert off(kept[f"vision.blocks.{layer}.{kind}.hook_pattern"], pattern) < 1e-5
    rows, cols = KEYS[name]
    assert kept["vision.hook_embed"].shape[1] == rows * cols
    assert model.image_reader.grid(model.vision) == (rows, cols)


@torch.no_grad()
def test_positions_are_latents_and_the_keys_of_the_first_block_the_places_of_the_input():
    whole, model = parts("Learned")
    picture = photo(SIDE, SIDE)
    out = whole(pixel_values=read(model), output_hidden_states=True)
    assert off(model.run(picture), out.logits) < 1e-5
    assert off(model.run(photo(SIDE, SIDE, 1)), out.logits) > 1e-3
    last = mm.activations(model, picture, "vision.resid_post", layer=4)
    assert off(last.values, out.hidden_states[-1][0]) < 1e-5
    assert last.of("pos") == tuple(Marker("latent", at) for at in range(6))
    cross = mm.activations(model, picture, "vision.cross_pattern", layer=0)
    assert cross.axes == ("head", "query", "key") and len(cross.of("key")) == SIDE * SIDE
    assert cross.of("key")[SIDE + 1] == mm.Patch(1, 1)
    assert cross.of("query") == last.of("pos")
    assert mm.activations(model, picture, "vision.pattern").of("layer") == (1, 2, 3, 4)


def test_every_point_fires_has_a_gradient_and_acts():
    table = mm.audit(parts("Learned")[1])
    assert (table.fires & table.differentiable & table.acts).all()


def test_a_units_score_is_what_silencing_it_takes_in_every_layer():
    model, picture = parts("Learned")[1], photo(SIDE, SIDE)
    scores = mm.attribute(model, picture, of=2, point="post")
    assert scores.axes == ("layer", "pos", "unit")
    for layer in range(5):
        at = scores.sel(layer=layer)
        latent, unit = divmod(int(at.values.abs().argmax()), at.values.shape[1])
        where = {"layer": layer, "unit": unit, "pos": Marker("latent", latent)}
        less = model.edit(mm.Edit("vision.neurons", lambda x: x * 0.98, **where))
        with torch.no_grad():
            moved = float(model.run(picture)[0, 2].double() - less.run(picture)[0, 2].double())
        score = float(at.values[latent, unit])
        assert moved / 0.02 == pytest.approx(score, rel=0.05, abs=1e-4), layer


def test_attribution_to_keys_and_pixels_is_the_finite_difference():
    whole, model = parts("Learned")
    picture = photo(SIDE, SIDE)
    keys = mm.attribute(model, picture, of=2, site="vision.cross_v", layer=[0])
    each = keys.sel(layer=0).sum("dim").sum("head")
    key = each.of("key")[int(each.values.abs().argmax())]
    with torch.no_grad():
        moved = [
            model.edit(mm.Edit("vision.cross_v", lambda x, by=by: x * by, layer=0, key=key)).run(
                picture)[0, 2].double() for by in (1.01, 0.99)
        ]  # fmt: skip
    change = float(moved[0] - moved[1]) / 0.02
    assert change == pytest.approx(float(each.sel(key=key).item()), rel=0.05, abs=1e-5)
    pixels = read(model).requires_grad_()
    (grad,) = torch.autograd.grad(whole(pixel_values=pixels).logits[0, 2], pixels)
    found = mm.attribute(model, picture, of=2, site="pixels")
    assert off(found.values, (grad * pixels)[0].detach()) < 1e-4
    where = mm.attribute_picture(model, picture, of=2, at="pixels")
    assert where.of("pos")[17] == mm.Patch(1, 1) and len(where.of("pos")) == SIDE * SIDE


@torch.no_grad()
def test_a_painted_square_moves_the_input_at_its_place_and_no_other():
    model = parts("Learned")[1]
    plain, painted = read(model), photo(SIDE, SIDE)
    box = model.image_reader.box(model.vision, mm.Patch(3, 7), SIDE, SIDE)
    assert box == (7, 3, 8, 4)
    painted.putpixel((7, 3), (255, 0, 255))
    with model.hooks([]):
        before, after = (
            model.run_with_cache(one)[1]["vision.hook_embed"][0]
            for one in (plain, model.vision.preprocess(painted)[None])
        )
    assert (before != after).any(-1).nonzero().flatten().tolist() == [3 * SIDE + 7]


@torch.no_grad()
def test_latents_patched_from_another_picture_give_its_logits():
    model, one, other = parts("Learned")[1], photo(SIDE, SIDE), photo(SIDE, SIDE, 1)
    clean = mm.activations(model, one, "vision.resid_post", layer=2)
    there = model.edit(mm.Edit("vision.resid_post", clean, layer=2))
    assert off(there.run(other), model.run(one)) < 1e-5
    pair = patching.Pair(one, other)
    found = patching.patch(model, pair, lambda logits: logits[2], "vision.resid_post", layer=2)
    assert found.of("pos")[0] == Marker("latent", 0)
    silent = model.edit(mm.Edit("vision.cross_attn_out", 0.0, layer=0))
    assert off(silent.run(one), silent.run(other)) < 1e-6  # nothing else has read the picture


def test_copies_are_the_same_and_the_callers_model_is_not_touched():
    whole, model = parts("Learned")
    picture = photo(SIDE, SIDE)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again.run(picture), model.run(picture))
        assert again.image_reader.grid(again.vision) == (SIDE, SIDE)
    half = mm.from_parts(vision=whole, dtype="bfloat16")
    assert half.run(picture).dtype == torch.bfloat16
    assert next(whole.parameters()).dtype == torch.float32


def test_a_folder_is_read_with_its_classes_and_what_latents_cannot_be_asked_is_refused(tmp_path):
    whole, model = parts("Learned")
    with pytest.raises(CapabilityError, match="no patches for a language model"):
        mm.from_parts(vision=whole, lm=mm.load("toy-gpt2").lm.hf, tokenizer=toy.tokenizer())
    with pytest.raises(CapabilityError, match="lie nowhere"):
        mm.attribute_picture(model, photo(SIDE, SIDE), of=2, at="features")
    with pytest.raises(CapabilityError, match="no classes of pictures"):
        mm.from_parts(vision=whole.perceiver)
    with pytest.raises(CapabilityError, match="read as a whole"):
        mm.from_parts(vision=whole, feature_layer="blocks.1.hook_resid_post")
    whole.save_pretrained(tmp_path / "perceiver")
    loaded = mm.from_parts(vision=tmp_path / "perceiver")
    assert off(loaded.run(photo(SIDE, SIDE)), model.run(photo(SIDE, SIDE))) < 1e-5
