"""Class logits of an encoder with its head: the caller's own numbers, with every hook firing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from encoders import TINY, settle, shake

import mmlens as mm
from mmlens.families.parts import from_parts
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.wrap import from_open_clip, from_timm, wrap_vision
from mmlens.values.errors import ArgumentError, CapabilityError

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

LABELS = {0: "cat", 1: "dog", 2: "newt"}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
WINDOWS = {"patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
PLAIN = {key: value for key, value in TINY.items() if key != "intermediate_size"}
VIT = {"depth": 2, "embed_dim": 24, "num_heads": 3}


def hf(name: str, **config):
    def make():
        cls = getattr(transformers, f"{name}ForImageClassification")
        module = shake(cls(cls.config_class(**config, id2label=LABELS)))
        size = config.get("image_size", 32 if "vision_config" in config else 64)
        return settle(module, lambda x: module(pixel_values=x), size), {"image_size": size}

    return make


def of_timm(name: str, size: int = 64, **kwargs):
    def make():
        module = shake(timm.create_model(name, **{"num_classes": 3, **kwargs}))
        return settle(module, module, size), {"image_size": size}

    return make


WHOLE = {
    "vit": hf("ViT", **TINY),
    "beit": hf("Beit", **TINY),
    "clip": hf("CLIP", vision_config=TINY),
    "dinov2 registers": hf("Dinov2WithRegisters", **PLAIN),
    "resnet": hf("ResNet", embedding_size=8, **STAGES),
    "convnext": hf("ConvNext", **STAGES),
    "swin": hf("Swin", image_size=64, **WINDOWS),
    "timm vit": of_timm("vit_tiny_patch16_224", img_size=64, **VIT),
    "timm deit": of_timm("deit_tiny_distilled_patch16_224", img_size=64, **VIT),
    "timm resnet": of_timm("resnet10t"),
    "timm nf_resnet": of_timm("nf_resnet26", width_factor=0.125),
    "timm convnext": of_timm("convnext_atto", depths=(1, 1, 1, 1)),
    "timm swin": of_timm(
        "swin_tiny_patch4_window7_224",
        img_size=64,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
    ),
}
CLASS_TOKEN = {"vit", "timm vit", "timm deit"}
"""Their heads read the prefix tokens only, so nothing that is done to patches at the end counts."""


@pytest.fixture(scope="module", params=list(WHOLE))
def case(request):
    module, prepared = WHOLE[request.param]()
    return request.param, module, wrap_vision(module, prepared)


def pictures(vision: HookedVision) -> torch.Tensor:
    return torch.randn(2, 3, *vision.image_size, generator=torch.Generator().manual_seed(1))


def own_logits(module, x: torch.Tensor) -> torch.Tensor:
    out = module(x)
    return out if isinstance(out, torch.Tensor) else out.logits


def near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1))


def test_class_logits_are_those_of_the_callers_model(case):
    _, module, vision = case
    x = pictures(vision).requires_grad_()
    ours, theirs = vision.classify(x), own_logits(module, x)
    assert vision.n_classes == theirs.shape[1] == 3
    assert near(ours, theirs) and theirs.std() > 1e-3
    grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (ours, theirs)]
    assert near(*grads) and grads[0].abs().max() > 0


def test_every_hook_point_fires_on_the_way_to_the_classes(case):
    _, module, vision = case
    seen = []
    for point in vision.hook_dict.values():
        point.add_hook(lambda value, hook: seen.append(hook.name))
    ours = vision.classify(pictures(vision))
    for point in vision.hook_dict.values():
        point.remove_hooks("both")
    assert sorted(seen) == sorted(vision.hook_dict)
    assert set(vision.class_points) == set(vision.hook_dict)
    assert near(ours, own_logits(module, pictures(vision)))


def test_what_a_hook_writes_reaches_the_classes_as_in_the_callers_model(case):
    name, module, vision = case
    x = pictures(vision)

    def fade(out):
        return out * torch.linspace(0, 1, out.shape[-1])

    vision.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda value, hook: fade(value))
    ours = vision.classify(x)
    vision.hook_dict["blocks.0.hook_resid_post"].remove_hooks("both")
    path = next(p for p, part in vision.inside.named_modules() if part is vision._blocks[0])
    encoder = module.get_submodule(vision._path) if vision.whole is not None else module
    block = encoder.get_submodule(path)

    def write(part, args, out):
        return (fade(out[0]), *out[1:]) if isinstance(out, tuple) else fade(out)

    handle = block.register_forward_hook(write)
    theirs = own_logits(module, x)
    handle.remove()
    assert near(ours, theirs) and not near(ours, own_logits(module, x)), name


def test_written_features_reach_a_head_that_reads_them(case):
    name, module, vision = case
    x = pictures(vision)
    before = vision(x)
    vision.hook_dict["hook_features"].add_hook(lambda value, hook: value * 0)
    moved = not near(vision.classify(x), own_logits(module, x))
    vision.hook_dict["hook_features"].remove_hooks("both")
    assert moved == (name not in CLASS_TOKEN)
    assert torch.equal(vision(x), before)


def test_copies_pickles_and_other_feature_layers_keep_the_classes(case):
    name, module, vision = case
    if name not in ("vit", "beit", "resnet", "timm deit", "timm resnet"):
        pytest.skip("one of each way to hold a head is enough")
    theirs = own_logits(module, pictures(vision))
    early = vision.at("blocks.0.hook_resid_post")
    with pytest.raises(CapabilityError, match="ends at its feature layer"):
        early.classify(pictures(vision))
    assert early.n_classes == 0
    copies = (
        copy.deepcopy(vision),
        pickle.loads(pickle.dumps(vision)),
        early.at("last_hidden_state"),
    )
    for again in copies:
        assert again.class_names == vision.class_names
        assert near(again.classify(pictures(vision)), theirs)
        again.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda value, hook: value * 0)
        assert not near(again.classify(pictures(vision)), theirs)
    assert near(vision.classify(pictures(vision)), theirs)
    half = copy.deepcopy(vision).to(torch.float64)
    assert half.classify(pictures(vision)).dtype == torch.float64


def test_the_callers_classifier_is_never_touched(case):
    name, module, vision = case
    fresh = WHOLE[name]()[0].state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    pointers = {p.data_ptr() for p in module.parameters()}
    assert {p.data_ptr() for p in vision.parameters()} <= pointers, "weights are shared"


def test_classes_are_called_what_the_configuration_calls_them():
    assert wrap_vision(WHOLE["vit"]()[0]).class_names == ("cat", "dog", "newt")
    own = of_timm("vit_tiny_patch16_224", img_size=64, **VIT)()[0]
    assert wrap_vision(own).class_names == ("0", "1", "2")
    known = timm.create_model("vit_tiny_patch16_224", img_size=32, **VIT)
    names = wrap_vision(known).class_names
    assert len(names) == 1000 and names[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")


def test_a_timm_model_inside_a_classifier_of_transformers_has_its_labels():
    if not hasattr(transformers, "TimmWrapperForImageClassification"):
        pytest.skip("this release has no such class")
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", id2label=LABELS, model_args={**VIT, "img_size": 32}
    )
    module = shake(transformers.TimmWrapperForImageClassification(config))
    vision = wrap_vision(module, {"input_size": (3, 32, 32)})
    assert vision.class_names == ("cat", "dog", "newt")
    assert near(vision.classify(pictures(vision)), own_logits(module, pictures(vision)))


def test_an_encoder_alone_has_no_classes_and_says_so():
    text = {"context_length": 8, "vocab_size": 49, "width": 16, "heads": 2, "layers": 1}
    eye = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 8}
    alone = [
        wrap_vision(shake(transformers.ViTModel(transformers.ViTConfig(**TINY)))),
        wrap_vision(shake(timm.create_model("resnet10t", num_classes=0)), {"image_size": 64}),
        from_open_clip(shake(open_clip.model.CLIP(16, eye, text))),
    ]
    for vision in alone:
        assert vision.n_classes == 0 and vision.class_names == vision.class_points == ()
        with pytest.raises(CapabilityError, match="wrap a whole classifier"):
            vision.classify(pictures(vision))


def test_a_classifier_has_to_hold_the_encoder():
    whole, other = WHOLE["vit"]()[0], WHOLE["vit"]()[0]
    with pytest.raises(ArgumentError, match="does not hold this ViTModel"):
        wrap_vision(whole, whole=other)


@pytest.mark.parametrize("name", ["vit", "beit", "timm vit"])
def test_a_bridge_saves_the_encoder_of_a_classifier(name, tmp_path):
    module, prepared = WHOLE[name]()
    model = mm.load("toy-gptj")
    vision = wrap_vision(module, prepared)
    if name == "timm vit":
        vision = from_timm(module, prepared, kwargs={"img_size": 64, **VIT, "num_classes": 3})
    bridge = from_parts(vision, None, model.lm)
    bridge.save(tmp_path / "bridge")
    again = mm.load(tmp_path / "bridge").vision
    assert torch.equal(again(pictures(vision)), vision(pictures(vision)))
    assert again.n_classes == (3 if name == "timm vit" else 0)
