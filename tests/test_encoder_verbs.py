"""Causal verbs on dual encoders and on vision models alone: the mathematics is a bridge's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from clip_twins import classifier
from dual_twins import DUALS, TEXTS
from PIL import Image

import mmlens as mm
from mmlens import Edit, Neuron, Patch, patching
from mmlens.patching import Pair, metrics
from mmlens.values.errors import (
    AddressError,
    CapabilityError,
    PromptError,
    SiteError,
    TargetError,
)
from mmlens.values.labels import Token

pytest.importorskip("open_clip")
DRAW = np.random.default_rng(0)
PHOTO, OTHER = (Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8")) for _ in range(2))
DOG, CATS = TEXTS
NAMES = ["open_clip ViT", "open_clip ResNet", "ViT with classes", "ResNet with classes"]
LAYER = 1


def resnet() -> mm.HookedVisionModel:
    import timm

    torch.manual_seed(0)
    small = {"channels": (8, 8, 16, 16), "stem_width": 8}
    seen = {"input_size": (3, 64, 64), "test_input_size": (3, 64, 64)}
    net = timm.create_model("resnet10t", num_classes=4, pretrained_cfg_overlay=seen, **small).eval()
    for module in net.modules():  # blocks end in a norm that starts at zero
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.7)
    return mm.from_parts(vision=net)


@pytest.fixture(scope="module")
def made():
    """Each model once, in float64: (the model, what is explained)."""
    kept: dict[str, tuple[Any, Any]] = {}

    def make(name: str) -> tuple[Any, Any]:
        if name not in kept:
            if name in DUALS:
                module, preprocess, tokenizer = DUALS[name]()
                model = mm.from_model(module, preprocess, tokenizer, name=name, dtype="float64")
                kept[name] = model, DOG
            else:
                model = classifier().to(torch.float64) if name.startswith("ViT") else resnet()
                kept[name] = model.to(torch.float64), 2
        return kept[name]

    return make


@pytest.fixture(scope="module")
def clip(made) -> mm.HookedDualEncoder:
    return made("open_clip ViT")[0]


def answer(model: Any, picture: Any, of: Any) -> float:
    """The logit of a picture with a text, or of its class, from a plain forward pass."""
    if isinstance(of, str):
        return float(model.run([picture, of]))
    return float(model.run(picture)[0, of])


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_layer_patched_from_a_picture_gives_its_logit_and_no_place_the_corrupt_one(
    made, name
):
    model, of = made(name)
    pair, metric = Pair(PHOTO, OTHER), metrics.logit(model, of)
    for direction, source, base in (("denoise", PHOTO, OTHER), ("noise", OTHER, PHOTO)):
        for site in (None, "pixels"):
            layer = {} if site else {"layer": LAYER}
            found = patching.patch(
                model, pair, metric, site, by=(), direction=direction, pos=slice(None), **layer
            )
            assert found.shape == ()
            assert found.item() == pytest.approx(answer(model, source, of))
        nothing = patching.patch(
            model, pair, metric, layer=LAYER, direction=direction, pos={"none": []}
        )
        assert nothing.item() == pytest.approx(answer(model, base, of))
    assert found.about["clean"] == pytest.approx(answer(model, PHOTO, of))
    assert found.about["corrupt"] == pytest.approx(answer(model, OTHER, of))


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_at_one_place_is_an_edit_with_the_other_pictures_value_there(made, name):
    model, of = made(name)
    metric, site = metrics.logit(model, of), "vision.resid_post"
    found = patching.patch(model, Pair(PHOTO, OTHER), metric, site, layer=LAYER)
    assert found.axes == ("layer", "pos")
    last = found.of("pos")[-1]
    there = mm.activations(model, PHOTO, site, layer=LAYER, pos=last)
    edited = model.edit(Edit(site, there.values, layer=LAYER, pos=last))
    assert float(found.sel(layer=LAYER, pos=last).values) == pytest.approx(
        answer(edited, OTHER, of)
    )
    neuron = Neuron(LAYER, 3, "vision")
    site = mm.activations(model, PHOTO, layer=LAYER).about["site"]
    one = patching.patch(model, Pair(PHOTO, OTHER), metric, site, neuron)
    there = mm.activations(model, PHOTO, site, neuron)
    value = there.values[:, None] if there.axes == ("pos",) else there.values
    edited = model.edit(Edit(site, value, neuron))
    assert one.of("neuron") == (neuron,)
    assert float(one.values) == pytest.approx(answer(edited, OTHER, of))


@pytest.mark.parametrize("name", NAMES)
def test_attribution_patching_is_the_first_order_and_its_integral_adds_up_to_the_patch(made, name):
    model, of = made(name)
    metric = metrics.logit(model, of)
    pair, site = Pair(PHOTO, OTHER), "vision.resid_post"
    first = patching.attribution_patching(model, pair, metric, site, layer=LAYER)
    by_place = first if first.axes == ("layer", "pos") else first.sum("channel")
    for at in by_place.of("pos")[::3]:
        new, old = (
            mm.activations(model, p, site, layer=LAYER, pos=at).values for p in (PHOTO, OTHER)
        )
        less, more = (
            model.edit(Edit(site, old + t * (new - old), layer=LAYER, pos=at))
            for t in (-1e-4, 1e-4)
        )
        slope = (answer(more, OTHER, of) - answer(less, OTHER, of)) / 2e-4
        score = float(by_place.sel(layer=LAYER, pos=at).values)
        assert score == pytest.approx(slope, rel=1e-2, abs=1e-6)
    whole = patching.attribution_patching(model, pair, metric, layer=LAYER, steps=32)
    change = answer(model, PHOTO, of) - answer(model, OTHER, of)
    assert float(whole.values.sum()) == pytest.approx(change, rel=0.02, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_an_ablation_is_an_edit_and_its_curve_ends_where_all_units_are_silent(made, name):
    model, of = made(name)
    metric = metrics.logit(model, of)
    units = [Neuron(LAYER, unit, "vision") for unit in (3, 1, 2)]
    scores = patching.ablation_curve(model, PHOTO, metric, units, k=(0, 1, 3), randoms=1)
    site = mm.activations(model, PHOTO, layer=LAYER).about["site"]
    plain = answer(model, PHOTO, of)
    assert scores.about["clean"] == pytest.approx(plain)
    for k in (0, 1, 3):
        edited = model.edit(*(Edit(site, 0.0, unit) for unit in units[:k]))
        found = scores.sel(arm="ranked", k=k).item()
        assert found == pytest.approx(answer(edited, PHOTO, of))
    whole = patching.ablate(model, PHOTO, metric, site, by=(), layer=LAYER)
    edited = model.edit(Edit(site, 0.0, layer=LAYER))
    assert whole.item() == pytest.approx(answer(edited, PHOTO, of))
    mean = patching.mean_over(model, [PHOTO, OTHER], layer=LAYER)
    assert mean.axes[0] == "layer"
    acts = [mm.activations(model, p, site, layer=LAYER) for p in (PHOTO, OTHER)]
    over = [axis for axis in acts[0].axes if axis in ("pos", "row", "col")]
    right = sum(one.mean(*over).values for one in acts) / 2
    torch.testing.assert_close(mean.values[0], right.float(), check_dtype=False)
    resampled = patching.ablate(model, PHOTO, metric, by=(), value=OTHER, layer=LAYER)
    assert resampled.item() == pytest.approx(answer(model, OTHER, of))


@pytest.mark.parametrize("name", NAMES)
def test_attributions_to_pixels_and_units_add_up_to_the_change_of_the_logit(made, name):
    model, of = made(name)
    for how in ("integrated_gradients", "occlusion", "gradient"):
        found = mm.attribute_picture(model, PHOTO, of, attribution=how, steps=64)
        assert found.axes == ("pos",)
        assert found.of("pos")[0] == Patch(0, 0)
        assert float(found.values.abs().sum()) > 0
    pixels = model.vision.preprocess(PHOTO)[None].double()
    grey = pixels.mean((-2, -1), keepdim=True).expand_as(pixels)
    row = model.run(grey)[0]
    end = float(metrics.logit(model, of)(row))
    whole = mm.attribute_picture(model, PHOTO, of, steps=64)
    assert whole.about["change"] == pytest.approx(answer(model, PHOTO, of) - end)
    assert float(whole.values.sum()) == pytest.approx(whole.about["change"], rel=0.02, abs=1e-3)
    units = mm.integrated_gradients(model, PHOTO, of, layer=LAYER, steps=32)
    site = mm.activations(model, PHOTO, layer=LAYER).about["site"]
    silent = model.edit(Edit(site, 0.0, layer=LAYER))
    change = answer(model, PHOTO, of) - answer(silent, PHOTO, of)
    assert float(units.values.sum()) == pytest.approx(change, rel=0.02, abs=1e-3)


def test_occlusion_is_the_change_when_a_patch_takes_the_mean_colour(clip):
    found = mm.attribute_picture(clip, PHOTO, DOG, attribution="occlusion")
    pixels = clip.vision.preprocess(PHOTO)[None].double()
    covered = pixels.clone()
    covered[..., 8:16, 16:24] = pixels.mean((-2, -1))[..., None, None]
    row = clip.run(covered)[0]
    change = answer(clip, PHOTO, DOG) - float(metrics.logit(clip, DOG)(row))
    assert float(found.sel(pos=Patch(1, 2)).values) == pytest.approx(change)


def test_a_text_is_patched_from_another_at_its_tokens_and_explained_by_a_picture(clip):
    pair = Pair("a photo of a dog", "a photo of a cat")
    metric = metrics.logit(clip, PHOTO)
    found = patching.patch(clip, pair, metric)
    assert found.about["site"] == "text.resid_pre"
    at = found.of("pos").index(Token("cat", 5))
    assert [str(label) for label in found.of("pos")[1:6]] == ["a", "photo", "of", "a", "cat"]
    first = found.sel(layer=0)
    plain = answer(clip, PHOTO, "a photo of a dog")
    # before anything is mixed the two texts differ in this token alone
    assert float(first.values[at]) == pytest.approx(plain)
    others = [i for i in range(len(found.of("pos"))) if i != at]
    torch.testing.assert_close(
        first.values[others], torch.full((len(others),), found.about["corrupt"]), check_dtype=False
    )
    word = mm.attribute_picture(clip, "a photo of a dog", PHOTO)
    torch.testing.assert_close(word.values, mm.attribute_picture(clip, PHOTO, DOG).values)


def test_metrics_of_a_pair_are_cosines_scaled_and_differences_of_texts(clip, made):
    row = mm.embed(clip, PHOTO)[0]
    dog, cats = (float(clip.run([PHOTO, text])) for text in TEXTS)
    assert float(metrics.logit(clip, DOG)(row)) == pytest.approx(dog)
    assert float(metrics.logit_difference(clip, DOG, CATS)(row)) == pytest.approx(dog - cats)
    assert float(metrics.logit(clip, PHOTO)(mm.embed(clip, DOG)[0])) == pytest.approx(dog)
    vit, _ = made("ViT with classes")
    logits = vit.run(PHOTO)[0]
    assert float(metrics.logit(vit, "dog")(logits)) == float(logits[3])
    assert float(metrics.probability(vit, 3)(logits)) == pytest.approx(float(logits.softmax(-1)[3]))
    assert float(metrics.kl(vit, PHOTO)(logits)) == pytest.approx(0.0, abs=1e-6)
    assert float(metrics.rank(vit, int(logits.argmax()))(logits)) == 0
    siglip = mm.from_model(*DUALS["open_clip SigLIP"](), dtype="float64")
    given = float(siglip.run([PHOTO, DOG]))
    probability = metrics.probability(siglip, DOG)(mm.embed(siglip, PHOTO)[0])
    assert float(probability) == pytest.approx(1 / (1 + np.exp(-given)))


def test_edits_stand_while_copies_of_a_picture_are_changed_side_by_side(clip):
    at = Patch(1, 2)
    edited = clip.edit(Edit("vision.resid_post", 0.0, layer=0, pos=at))
    found = patching.patch(edited, Pair(PHOTO, OTHER), metrics.logit(edited, DOG), batch=5)
    assert found.about["clean"] == pytest.approx(answer(edited, PHOTO, DOG))
    whole = patching.patch(edited, Pair(PHOTO, OTHER), metrics.logit(edited, DOG), by=("layer",))
    for value in whole.values.tolist():
        assert value == pytest.approx(answer(edited, PHOTO, DOG))
    assert found.values.shape == (3, 17)


def test_layers_of_different_grids_are_asked_one_at_a_time_and_ranked_by_channel_and_cell(made):
    model, of = made("ResNet with classes")
    with pytest.raises(SiteError, match="differ in shape: ask about one, as in layer=3"):
        patching.patch(model, Pair(PHOTO, OTHER), metrics.logit(model, of))
    with pytest.raises(AddressError, match="ask about one, as in layer=3"):
        mm.attribute(model, PHOTO, of=of)
    scores = mm.attribute(model, PHOTO, of=of, layer=LAYER)
    assert scores.about["tower"] == "vision"
    assert scores.axes == ("layer", "channel", "row", "col")
    best = mm.top_neurons(scores, 3)
    index = int(scores.values[0].argmax())
    channel, row, col = np.unravel_index(index, scores.shape[1:])
    assert best.neuron[0] == Neuron(LAYER, int(channel), "vision")
    assert best.patch[0] == Patch(int(row), int(col))
    by_sum = mm.top_neurons(scores, 1, rank_by="sum")
    assert by_sum.neuron[0].unit == int(scores.values[0].sum((-2, -1)).argmax())
    same = mm.top_neurons(scores.sum("row", "col"), 1)
    assert same.neuron[0] == by_sum.neuron[0]


def test_what_an_encoder_cannot_be_asked_is_one_sentence(clip, made):
    metric = metrics.logit(clip, DOG)
    with pytest.raises(PromptError, match="a picture and none: give prompts of one layout"):
        patching.patch(clip, Pair(PHOTO, DOG), metric)
    with pytest.raises(PromptError, match="one picture or text at a time"):
        patching.patch(clip, Pair(mm.Prompt(PHOTO, OTHER), OTHER), metric)
    with pytest.raises(TargetError, match="the embedding of a picture or of a text alone"):
        patching.patch(clip, Pair(mm.Prompt(PHOTO, DOG), mm.Prompt(OTHER, DOG)), metric)
    with pytest.raises(AddressError, match="write Neuron\\(1, 3, 'vision'\\)"):
        patching.patch(clip, Pair(PHOTO, OTHER), metric, "vision.neurons", Neuron(1, 3))
    with pytest.raises(SiteError, match="has no positions"):
        patching.patch(clip, Pair(PHOTO, OTHER), metric, "vision.embedding")
    with pytest.raises(PromptError, match="is in texts, and this prompt has none"):
        patching.patch(clip, Pair(PHOTO, OTHER), metric, "text.resid_pre")
    with pytest.raises(SiteError, match="does not depend on the patches' features .* at='pixels'"):
        mm.attribute_picture(clip, PHOTO, DOG, at="features")
    with pytest.raises(SiteError, match="in the tower 'projection'"):
        mm.attribute_picture(clip, PHOTO, DOG, at="soft_prompt")
    with pytest.raises(PromptError, match="no picture in this prompt"):
        mm.attribute_picture(clip, DOG, torch.ones(16))
    with pytest.raises(CapabilityError, match="no probability of its own"):
        metrics.probability(clip, DOG)
    with pytest.raises(CapabilityError, match="neither tokens nor classes"):
        metrics.rank(clip, DOG)
    with pytest.raises(CapabilityError, match="neither tokens nor classes"):
        metrics.kl(clip, PHOTO)
    with pytest.raises(AddressError, match="No picture reaches units of the tower 'lm'"):
        mm.top_images(clip, "pictos:held_out:2", Neuron(1, 3))
    with pytest.raises(AddressError, match="No picture reaches units of the tower 'text'"):
        mm.top_images(clip, "pictos:held_out:2", Neuron(1, 3, "text"))
