"""Where in the picture a word comes from: exact sums, finite differences, the planted patch."""

from __future__ import annotations

import pytest
import torch
from bridges import KINDS, bridge, prompt

import mmlens as mm
from mmlens.families import toy
from mmlens.values.labels import Patch

every_kind = pytest.mark.parametrize("kind", KINDS)
every_place = pytest.mark.parametrize("at", ["soft_prompt", "features", "pixels"])


def number(model, picture_prompt, hooks=()):
    with torch.no_grad():
        return model.run_with_hooks(picture_prompt, fwd_hooks=list(hooks))[0, -1, 7]


def values_at(model, name):
    kept = {}
    model.run_with_hooks(prompt(), fwd_hooks=[(name, lambda x, hook: kept.update(x=x.clone()))])
    return kept["x"]


NAMES = {
    "soft_prompt": "projection.hook_out",
    "features": "vision.hook_features",
    "pixels": "vision.hook_pixels",
}


@every_place
@every_kind
def test_integrated_gradients_of_the_patches_sum_to_what_the_picture_changes(kind, at):
    model = bridge(f"toy-{kind}")
    found = mm.attribute_picture(model, prompt(), 7, after="", at=at, steps=256, batch=64)
    over = (-2, -1) if at == "pixels" else (-2,)
    blank = [(NAMES[at], lambda x, hook: x.mean(over, keepdim=True).expand_as(x))]
    change = number(model, prompt()) - number(model, prompt(), blank)
    assert found.axes == ("pos",)
    assert all(isinstance(label, Patch) for label in found.labels["pos"])
    assert float(found.values.sum()) == pytest.approx(float(change), abs=5e-4)
    assert found.about["sum"] == pytest.approx(float(found.values.sum()))
    assert found.about["change"] == pytest.approx(float(change), abs=1e-5)


@every_place
def test_the_gradient_is_the_slope_of_moving_a_patch_to_its_baseline(at):
    model = bridge("toy-gptj")
    found = mm.attribute_picture(model, prompt(), 7, after="", at=at, attribution="gradient")
    patch = Patch(1, 2)
    x = values_at(model, NAMES[at])
    over = (-2, -1) if at == "pixels" else (-2,)
    base = x.mean(over, keepdim=True).expand_as(x)
    place = torch.zeros_like(x)
    rows, cols = model.vision.grid
    if at == "pixels":
        high, wide = x.shape[-2] // rows, x.shape[-1] // cols
        place[..., high : 2 * high, 2 * wide : 3 * wide] = 1
    else:
        place[:, cols + 2] = 1
    step = 1e-2
    near = [(NAMES[at], lambda x, hook: x - step * place * (x - base))]
    slope = (number(model, prompt()) - number(model, prompt(), near)) / step
    assert float(found.sel(pos=patch).values) == pytest.approx(float(slope), abs=2e-3, rel=0.05)


@every_kind
def test_occlusion_of_a_patch_is_the_edit_that_puts_its_baseline_there(kind):
    model = bridge(f"toy-{kind}")
    found = mm.attribute_picture(
        model, prompt(), 7, after="", attribution="occlusion", baseline=0.0
    )
    patch = Patch(2, 1)
    changed = model.edit(mm.Edit("soft_prompt", 0.0, pos=patch))
    true = number(model, prompt()) - number(changed, prompt())
    assert float(found.sel(pos=patch).values) == pytest.approx(float(true), abs=1e-5)


@every_place
@pytest.mark.parametrize("attribution", ["integrated_gradients", "occlusion"])
def test_the_patch_that_a_planted_neuron_reads_comes_first(attribution, at):
    model = bridge("toy-gptj-planted")
    found = mm.attribute_picture(
        model, prompt((2, 1)), " dog", after="", attribution=attribution, at=at
    )
    assert found.labels["pos"][int(found.values.argmax())] == Patch(2, 1)


def test_two_pictures_have_patches_of_their_own():
    model = bridge("toy-gpt2")
    two = mm.Prompt(toy.picture((0, 0)), "and", toy.picture((3, 3)), "A picture of")
    for attribution in ("integrated_gradients", "occlusion"):
        found = mm.attribute_picture(
            model, two, 7, after="", attribution=attribution, at="pixels", batch=3
        )
        assert {patch.image for patch in found.labels["pos"]} == {0, 1}
        single = mm.attribute_picture(
            model, two, 7, after="", attribution=attribution, at="pixels", batch=1
        )
        assert torch.allclose(found.values, single.values, atol=1e-5)


def test_an_edited_model_is_asked_as_it_is():
    model = bridge("toy-gptj-planted")
    quiet = model.edit(mm.Edit("resid_post", 0.0, layer=1, pos=Patch))
    before = mm.attribute_picture(model, prompt(), " dog", after="")
    after = mm.attribute_picture(quiet, prompt(), " dog", after="")
    assert not torch.allclose(before.values, after.values)
    occluded = mm.attribute_picture(
        quiet, prompt(), " dog", after="", attribution="occlusion", baseline=0.0
    )
    changed = quiet.edit(mm.Edit("soft_prompt", 0.0, pos=Patch(2, 1)))
    token = model.to_single_token(" dog")
    with torch.no_grad():
        true = quiet(prompt())[0, -1, token] - changed(prompt())[0, -1, token]
    assert float(occluded.sel(pos=Patch(2, 1)).values) == pytest.approx(float(true), abs=1e-5)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"at": "pixel"}, "there is no such at: did you mean 'pixels'"),
        ({"attribution": "gradients"}, "there is no such attribution: did you mean"),
        ({"steps": 0}, "steps=0: write a whole number from 1 to 1000"),
    ],
)
def test_what_cannot_be_asked_is_told(options, sentence):
    with pytest.raises(mm.MMLensError, match=sentence):
        mm.attribute_picture(bridge("toy-gptj"), prompt(), 7, after="", **options)


def test_a_prompt_without_a_picture_has_no_places():
    with pytest.raises(mm.MMLensError, match="no picture in this prompt"):
        mm.attribute_picture(bridge("toy-gptj"), mm.Prompt("A picture of"), 7, after="")
