"""A vision encoder alone is a model: the verbs of mmlens run on classes, units and maps."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import mmlens as mm
from mmlens import view
from mmlens.model.hooked_vision_model import HookedVisionModel
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    ModelError,
    PromptError,
    SiteError,
    TargetError,
)

timm = pytest.importorskip("timm")
CLASS, LAYER, UNIT = 2, 1, 3
PHOTO = Image.fromarray((np.random.default_rng(0).random((40, 56, 3)) * 255).astype("uint8"))


def vit() -> HookedVisionModel:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        image_size=32, patch_size=8, num_labels=5, initializer_range=0.3,
    )  # fmt: skip
    return mm.from_parts(vision=ViTForImageClassification(config).eval().double())


def resnet() -> HookedVisionModel:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", pretrained=False, num_classes=4).eval().double()
    for module in net.modules():  # blocks end in a norm that starts at zero
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.7)
    return mm.from_parts(vision=net)


@pytest.fixture(scope="module", params=[vit, resnet], ids=["ViT", "ResNet"])
def model(request) -> HookedVisionModel:
    return request.param()


def site_of(model: HookedVisionModel) -> str:
    return "vision.neurons" if "blocks.0.mlp.hook_post" in model.vision.hook_dict else (
        "vision.resid_post"
    )  # fmt: skip


def places_of(scores: mm.Scores) -> dict[str, object]:
    """The place of a site where silencing matters most, by its axes."""
    one = scores.sel(layer=LAYER)
    table = one.sel(pos=mm.Patch).to_frame() if "pos" in one.axes else one.to_frame()
    best = table.loc[table["score"].abs().idxmax()]
    return {a: best[a] if a == "pos" else int(best[a]) for a in one.axes}


def test_its_class_logits_are_those_of_the_module_that_was_given(model):
    pixels = model.vision.preprocess(PHOTO)[None].double()
    whole = model.vision.classifier
    out = whole(pixels)
    assert torch.allclose(model(PHOTO), getattr(out, "logits", out), atol=1e-10)
    assert model.can("classes") and not model.can("logits")
    assert list(model.towers) == ["vision"]


def test_the_score_of_a_class_is_what_silencing_takes_to_first_order(model):
    site = site_of(model)
    scores = mm.attribute(model, PHOTO, of=CLASS, site=site, layer=[LAYER])
    where = places_of(scores)
    score = scores.sel(layer=LAYER, **where).item()
    assert abs(score) > 1e-9
    shrunk = model.edit(mm.Edit(site, lambda x: x * (1 - 1e-4), layer=LAYER, **where))
    change = (model(PHOTO) - shrunk(PHOTO))[0, CLASS].item() / 1e-4
    assert change == pytest.approx(score, rel=1e-2)


def test_a_unit_of_a_later_layer_is_explained_like_a_class(model):
    site, of = site_of(model), mm.Neuron(2, UNIT, "vision")
    scores = mm.attribute(model, PHOTO, of=of, site=site, layer=[LAYER])
    where = places_of(scores)
    shrunk = model.edit(mm.Edit(site, lambda x: x * (1 - 1e-4), layer=LAYER, **where))

    def activity(m: HookedVisionModel) -> float:
        found = mm.activations(m, PHOTO, site, layer=2).values
        return float(found[..., UNIT].mean() if "neurons" in site else found[UNIT].mean())

    change = (activity(model) - activity(shrunk)) / 1e-4
    assert change == pytest.approx(scores.sel(layer=LAYER, **where).item(), rel=1e-2)


def test_activations_are_what_a_plain_hook_sees_with_the_axes_of_the_tower(model):
    site = site_of(model)
    scores = mm.activations(model, PHOTO, site, layer=LAYER)
    seen: list[torch.Tensor] = []
    name = f"vision.blocks.{LAYER}." + ("mlp.hook_post" if "neu" in site else "hook_resid_post")
    model.run_with_hooks(PHOTO, [(name, lambda x, hook: seen.append(x))])
    assert torch.equal(scores.values, seen[0][0])
    assert scores.axes == (("pos", "unit") if "neurons" in site else ("channel", "row", "col"))


@pytest.mark.parametrize("make", [lambda: mm.load("toy-gpt2"), vit], ids=["bridge", "ViT"])
def test_activations_in_the_encoder_take_one_pass_of_it(make):
    model, passes = make(), []
    model.vision.hook_dict["hook_pixels"].add_hook(lambda x, hook: passes.append(1))
    mm.activations(model, mm.Prompt(PHOTO), "vision.neurons", layer=0)
    assert len(passes) == 1


def test_prefix_tokens_are_markers_beside_the_patches():
    scores = mm.activations(vit(), PHOTO, "vision.neurons", layer=0)
    labels = scores.of("pos")
    assert str(labels[0]) == "[CLS]" and labels[1] == mm.Patch(0, 0) and len(labels) == 17
    assert scores.sel(pos=mm.Patch).shape == (16, 24)


def test_a_map_named_by_patches_is_the_map_in_reading_order():
    model = resnet()
    whole = mm.activations(model, PHOTO, "vision.resid_post", layer=1)
    rows, cols = whole.shape[1:]
    patches = mm.activations(model, PHOTO, "vision.resid_post", layer=1, pos=mm.Patch)
    assert patches.axes == ("pos", "channel") and len(patches.of("pos")) == rows * cols
    there = patches.sel(pos=mm.Patch(1, 2))
    assert torch.equal(there.values, whole.sel(row=1, col=2).values)


def test_an_edit_of_a_map_by_patch_and_neuron_is_that_by_row_column_and_channel():
    model = resnet()
    plain = mm.activations(model, PHOTO, "vision.resid_post", layer=1)
    at = plain.to_frame(1).iloc[0]
    channel, row, col = int(at["channel"]), int(at["row"]), int(at["col"])
    unit, there = mm.Neuron(1, channel, "vision"), mm.Patch(row, col)
    a = model.edit(mm.Edit("vision.resid_post", 0.0, unit, pos=there))
    b = model.edit(mm.Edit("vision.resid_post", 0.0, layer=1, channel=channel, row=row, col=col))
    assert torch.equal(a(PHOTO), b(PHOTO)) and not torch.equal(a(PHOTO), model(PHOTO))
    seen = mm.activations(a, PHOTO, "vision.resid_post", layer=1)
    changed = (seen.values != plain.values).nonzero().tolist()
    assert changed == [[channel, row, col]]


def test_what_a_site_does_not_have_is_refused():
    model = resnet()
    with pytest.raises(AddressError, match="no axis 'head'"):
        mm.Edit("vision.resid_post", 0.0, layer=1, head=0)
    with pytest.raises(AddressError, match="no axis 'channel': it has layer, pos, dim"):
        vit().edit(mm.Edit("vision.resid_post", 0.0, layer=1, channel=0))
    with pytest.raises(SiteError, match="in the tower 'lm'"):
        mm.activations(model, PHOTO, "resid_post", layer=0)
    with pytest.raises(AddressError, match="different shapes"):
        mm.activations(model, PHOTO, "vision.resid_post")
    with pytest.raises(AddressError, match=r"Neuron\(1, 3, 'vision'\)"):
        mm.Edit("vision.resid_post", 0.0, mm.Neuron(1, 3))


def test_top_images_of_a_unit_are_those_with_its_largest_activation(model):
    data, neuron = mm.dataset("pictos:held_out:3"), mm.Neuron(2, UNIT, "vision")
    table = mm.top_images(model, data, [neuron], k=3)
    assert set(table["neuron"]) == {neuron}
    for row in table.itertuples():
        sample = next(s for s in data if s.id == row.sample)
        acts = mm.activations(model, sample.image, site_of(model), layer=2, pos=mm.Patch)
        best = acts.values[..., UNIT].max().item()
        assert row.value == pytest.approx(best, rel=1e-5)


def test_the_audit_measures_every_hook_point_of_the_encoder(model):
    table = mm.audit(model, PHOTO)
    assert set(table["name"]) == set(model.hook_dict)
    inner = table[table["name"].str.contains("hook_resid_post")]
    assert bool(inner["fires"].all()) and bool(inner["differentiable"].all())
    assert bool(inner["acts"].all())


def test_results_show_themselves(model):
    site = site_of(model)
    scores = mm.attribute(model, PHOTO, of=CLASS, site=site, layer=[LAYER]).sel(layer=LAYER)
    one = scores.sel(unit=UNIT) if "unit" in scores.axes else scores.sel(channel=UNIT)
    assert view.show(one.sel(pos=mm.Patch) if "pos" in one.axes else one, PHOTO) is not None
    sites = model.sites
    assert set(sites["tower"]) == {"vision"} and "vision.resid_post" in set(sites["site"])
    assert "layers" in model._repr_html_() and "vision" in repr(model)


def test_copies_and_pickles_give_the_same_logits(model):
    edited = model.edit(mm.Edit("vision.resid_post", 0.0, layer=0))
    for twin in (copy.deepcopy(edited), pickle.loads(pickle.dumps(edited))):
        assert torch.equal(twin(PHOTO), edited(PHOTO))
    _, cache = model.run_with_cache(PHOTO)
    assert f"vision.blocks.{LAYER}.hook_resid_post" in cache


def test_what_it_cannot_do_is_one_sentence(model):
    with pytest.raises(CapabilityError, match="has an unembedding"):
        mm.logit_lens(model, PHOTO)
    with pytest.raises(TargetError, match="No class is called 'dgo'"):
        mm.attribute(model, PHOTO, of="dgo", site=site_of(model))
    with pytest.raises(PromptError, match="pictures alone"):
        model(mm.Prompt(PHOTO, "What is it?"))
    with pytest.raises(ArgumentError, match="stop_at_layer"):
        model(PHOTO, stop_at_layer=1)
    with pytest.raises(ModelError, match="A projection leads into a language model"):
        mm.from_parts(vision=model.vision, projection=torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="or a vision encoder alone"):
        mm.from_parts(vision=None)
