"""Every encoder kind, tiny and random: the hooks tell the truth, and writing them changes things.

No download: the twins are built from configs. Each property runs over every kind.
"""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from encoders import shake
from packaging.version import Version
from PIL import Image
from torch import nn

from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.pixel_recipes import open_clip_recipe, timm_recipe
from mmlens.towers.vision.pixels import Pixels
from mmlens.towers.vision.processors import hf_recipe
from mmlens.towers.vision.wrap import build, from_open_clip, from_timm, wrap_vision
from mmlens.values.errors import AddressError, CapabilityError, CheckpointError, PictureError

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TIMM = {"depth": 2, "embed_dim": 24, "num_heads": 3}
SQUARE = {"image_size": 24, "patch_size": 8}


def hf(kind: str, **more):
    def make():
        cls = getattr(transformers, f"{kind}Model")
        config = cls.config_class(
            **TINY, **({"intermediate_size": 40} if kind != "Dinov2" else {}), **SQUARE, **more
        )
        return shake(cls(config))

    return make


def clip(**vision):
    cfg = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 8} | vision
    text = {"context_length": 8, "vocab_size": 49, "width": 16, "heads": 2, "layers": 1}
    return shake(open_clip.model.CLIP(16, cfg, text))


MODULES = {
    "vit": hf("ViT"),
    "beit": hf("Beit", use_relative_position_bias=True, use_mean_pooling=True),
    "beit-shared-bias": hf(
        "Beit", use_shared_relative_position_bias=True, layer_scale_init_value=0.0
    ),
    "deit": hf("DeiT"),
    "clip-hf": hf("CLIPVision"),
    "siglip": hf("SiglipVision"),
    "dinov2": hf("Dinov2"),
    "dinov2-gated": hf("Dinov2", use_swiglu_ffn=True),
    "clip-vit": lambda: clip(),
    "clip-vit-scaled": lambda: clip(ls_init_value=0.1),
    "clip-rn": lambda: clip(layers=[1, 1, 1, 2], width=8, image_size=64),
    "timm-vit": lambda: shake(timm.create_model("vit_tiny_patch16_224", img_size=32, **TIMM)),
    "timm-vit-reg": lambda: shake(
        timm.create_model("vit_small_patch14_reg4_dinov2", img_size=28, **TIMM, init_values=0.1)
    ),
    "timm-beit": lambda: shake(timm.create_model("beit_base_patch16_224", img_size=32, **TIMM)),
    "timm-nf": lambda: shake(timm.create_model("nf_resnet26", width_factor=0.125)),
    "timm-rn": lambda: shake(timm.create_model("resnet10t")),
}
CONV = {"clip-rn", "timm-nf", "timm-rn"}
ATTENTION = ["hook_q", "hook_k", "hook_v", "hook_pattern", "hook_z"]


def plain_features(kind: str, module, x: torch.Tensor) -> torch.Tensor:
    """The same features without mmlens, by each library's own public call."""
    if kind.startswith("clip-vit"):
        module.visual.output_tokens = True
        return module.visual(x)[1]
    if kind == "clip-rn":
        out = module.visual.forward_intermediates(x)["image_intermediates"][-1]
    elif kind.startswith("timm"):
        out = module.forward_features(x)
    else:
        out = module(pixel_values=x).last_hidden_state
    if out.dim() == 4:
        return torch.stack(
            [out[:, :, i, j] for i in range(out.shape[2]) for j in range(out.shape[3])], 1
        )
    side = int((out.shape[1] - 1) ** 0.5) if kind != "siglip" else 3
    side = 2 if kind == "timm-vit-reg" else side
    return out[:, out.shape[1] - side * side :]


def pixels_for(vision: HookedVision, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, *vision.image_size, generator=torch.Generator().manual_seed(1))


def wrap(kind: str):
    module = MODULES[kind]()
    size = {"timm-nf": 64, "timm-rn": 64}.get(kind)
    cfg = {"image_size": size} if size else None
    return module, wrap_vision(module, cfg)


@pytest.fixture(scope="module", params=list(MODULES))
def case(request):
    return request.param, *wrap(request.param)


def test_features_and_pixel_gradients_are_those_of_the_unhooked_module(case):
    kind, module, vision = case
    x = pixels_for(vision).requires_grad_()
    ours, theirs = vision(x), plain_features(kind, module, x)
    assert ours.shape == theirs.shape == (2, vision.grid[0] * vision.grid[1], vision.d_vision)
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    grads = [torch.autograd.grad((out * direction).sum(), x)[0] for out in (ours, theirs)]
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max().clamp(min=1)
    assert (grads[0] - grads[1]).abs().max() <= 1e-6 * grads[1].abs().max().clamp(min=1)
    assert grads[0].abs().max() > 1e-4


def test_reading_every_point_at_once_changes_nothing(case):
    _, _, vision = case
    x = pixels_for(vision).requires_grad_()
    cold = vision(x)
    seen = {}
    handles = [
        point.add_hook(lambda value, hook: seen.__setitem__(hook.name, value))
        for point in vision.hook_dict.values()
    ]
    hot = vision(x)
    for point in vision.hook_dict.values():
        point.remove_hooks("both")
    assert len(handles) == len(seen) and set(seen) == set(vision.hook_dict)
    grads = [torch.autograd.grad(out.square().mean(), x)[0] for out in (cold, hot)]
    assert (hot - cold).abs().max() <= 2e-6 * cold.abs().max().clamp(min=1)
    assert (grads[0] - grads[1]).abs().max() <= 2e-6 * grads[0].abs().max().clamp(min=1)


def test_every_point_is_differentiable_and_writable(case):
    _, _, vision = case
    x = pixels_for(vision, batch=1).requires_grad_()
    before = vision(x).detach()
    weight = torch.randn(before.shape, generator=torch.Generator().manual_seed(3))
    seen: dict[str, torch.Tensor] = {}
    for point in vision.hook_dict.values():
        point.add_hook(lambda value, hook: seen.setdefault(hook.name, value))
    grads = torch.autograd.grad((vision(x) * weight).sum(), list(seen.values()))
    for point in vision.hook_dict.values():
        point.remove_hooks("both")
    dead = [name for name, grad in zip(seen, grads, strict=True) if grad.abs().max() < 1e-7]
    assert not dead, f"no gradient at {dead}"
    for name, point in vision.hook_dict.items():
        noise = torch.randn(seen[name].shape, generator=torch.Generator().manual_seed(4))
        point.add_hook(lambda value, hook, noise=noise: value + 0.5 * noise)
        with torch.no_grad():
            change = (vision(x) - before).abs().max()
        point.remove_hooks("both")
        assert change > 1e-5, f"writing {name} changes nothing"
    assert torch.equal(vision(x), before)


def skip_closed(kind: str) -> None:
    """Skip DINOv2 where its blocks are built otherwise, so that fewer points can be opened."""
    if kind.startswith("dinov2") and Version(transformers.__version__) < Version("5.20"):
        pytest.skip("mmlens opens the blocks of DINOv2 as newer releases of transformers have them")


def test_the_points_of_a_transformer_are_all_there(case):
    kind, _, vision = case
    skip_closed(kind)
    block = ["hook_resid_pre", "hook_resid_post"]
    acts = {"clip-rn": 2, "timm-rn": 1, "timm-nf": 6}.get(kind, 0)  # a stage of two blocks
    block += [f"conv{n}.hook_{side}" for n in range(1, acts + 1) for side in ("pre", "post")]
    block += ["hook_resid_add"] if kind in ("clip-rn", "timm-rn") else []  # ends in a ReLU
    if kind not in CONV:
        block += [f"attn.{name}" for name in ATTENTION] + ["hook_attn_out", "hook_mlp_out"]
        block += ["mlp.hook_pre", "mlp.hook_post"]
    wanted = {"hook_pixels", "hook_embed", "hook_features"}
    wanted |= {f"blocks.{layer}.{name}" for layer in range(vision.n_layers) for name in block}
    assert set(vision.hook_dict) == wanted
    names = list(vision.hook_dict)
    assert names[0] == "hook_pixels" and names[-1] == "hook_features"
    assert all(point.name == name for name, point in vision.hook_dict.items())


def test_a_block_adds_what_attention_and_mlp_put_out(case):
    kind, _, vision = case
    skip_closed(kind)
    if kind in CONV:
        pytest.skip("a convolutional block has neither")
    seen = {}
    for point in vision.hook_dict.values():
        point.add_hook(lambda value, hook: seen.__setitem__(hook.name, value))
    vision(pixels_for(vision))
    for point in vision.hook_dict.values():
        point.remove_hooks("both")
    for layer in range(vision.n_layers):
        at = {name.split(".", 2)[-1]: v for name, v in seen.items() if f"blocks.{layer}." in name}
        added = at["hook_resid_pre"] + at["hook_attn_out"] + at["hook_mlp_out"]
        assert (added - at["hook_resid_post"]).abs().max() < 1e-5
        pattern, value = at["attn.hook_pattern"], at["attn.hook_v"]
        z = torch.einsum("bhqk,bkhd->bqhd", pattern, value)
        assert (z - at["attn.hook_z"]).abs().max() < 1e-5
        assert (pattern.sum(-1) - 1).abs().max() < 1e-5
        w_in, w_out = vision.weights(layer)
        assert w_in.shape == w_out.T.shape == (vision.d_vision, at["mlp.hook_post"].shape[-1])


def test_a_neurons_w_out_row_is_what_it_adds_to_the_mlp_output(case):
    kind, _, vision = case
    if (
        kind in CONV
        or "scale" in kind
        or kind in ("beit", "dinov2", "dinov2-gated", "timm-vit-reg", "timm-beit")
    ):
        pytest.skip("no MLP, or a layer scale behind it")
    out = {}
    vision.hook_dict["blocks.1.hook_mlp_out"].add_hook(lambda v, hook: out.setdefault(len(out), v))
    vision(pixels_for(vision))

    def silence(value, hook):
        value = value.clone()
        value[..., 5] += 1.0
        return value

    vision.hook_dict["blocks.1.mlp.hook_post"].add_hook(silence)
    vision(pixels_for(vision))
    for point in vision.hook_dict.values():
        point.remove_hooks("both")
    assert (out[1] - out[0] - vision.weights(1)[1][5]).abs().max() < 1e-5


def test_the_callers_module_is_never_touched(case):
    kind, module, vision = case
    fresh = MODULES[kind]()
    ours, theirs = module.state_dict(), fresh.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert all(p.requires_grad for p in module.parameters() if p.is_floating_point())
    assert not any(p.requires_grad for p in vision.parameters()) and not vision.module.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    first = next(p for p in vision.module.parameters())
    pointers = {p.data_ptr() for p in module.parameters()}
    assert first.data_ptr() in pointers, "weights are shared, not copied"
    copy.deepcopy(vision).double()
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_wrapping_what_was_wrapped_leaves_no_second_tap(case):
    _, _, vision = case
    again = HookedVision(vision.module, vision.kind, vision.pixels)
    counts = [
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in v.module.modules())
        for v in (vision, again)
    ]
    assert counts[0] == counts[1] and list(again.hook_dict) == list(vision.hook_dict)
    vision.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda value, hook: value * 0)
    x = pixels_for(vision, 1)
    assert not torch.equal(again(x), vision(x))
    vision.hook_dict["blocks.0.hook_resid_post"].remove_hooks("both")
    assert torch.equal(again(x), vision(x))


def test_a_copy_has_its_own_hooks(case):
    _, _, vision = case
    x = pixels_for(vision, 1)
    twin = copy.deepcopy(vision)
    twin.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda value, hook: value * 0 + 1)
    assert not torch.equal(twin(x), vision(x))
    twin.hook_dict["blocks.0.hook_resid_post"].remove_hooks("both")
    assert torch.equal(twin(x), vision(x))


def test_the_spec_builds_the_module_again(case):
    kind, _, vision = case
    if kind in ("timm-vit", "timm-vit-reg", "timm-beit", "timm-nf"):
        kwargs = {
            "timm-vit": {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3},
            "timm-nf": {"width_factor": 0.125},
        }.get(kind)
        if kwargs is None:
            pytest.skip("one ViT is enough")
        cfg = {"image_size": vision.image_size[0]}
        vision = from_timm(vision.module, cfg, kwargs=kwargs)
    config = vision.module.config.to_dict() if vision.kind == "hf" else None
    module = build(vision.spec(), config)
    module.load_state_dict(vision.module.state_dict())
    again = HookedVision(
        module,
        vision.kind,
        Pixels.from_dict(vision.spec()),
        n_prefix=vision.spec()["drop_prefix_tokens"],
    )
    x = pixels_for(vision, 1)
    assert torch.equal(again(x), vision(x))


def test_patches_are_row_major():
    vision = wrap("clip-rn")[1]
    dark = torch.zeros(1, 3, 64, 64)
    bright = dark.clone()
    bright[..., :32, 32:] = 5.0  # the top right cell of a 2 x 2 grid
    change = (vision(bright) - vision(dark)).norm(dim=-1)[0]
    assert vision.grid == (2, 2) and int(change.argmax()) == 1


def test_a_pooled_encoder_returns_the_mean_patch():
    module = MODULES["timm-nf"]()
    whole, pooled = (from_timm(module, {"image_size": 64}, pooled=p) for p in (False, True))
    x = pixels_for(whole)
    assert pooled.grid == (1, 1) and pooled(x).shape == (2, 1, whole.d_vision)
    assert torch.allclose(pooled(x)[:, 0], whole(x).mean(1), atol=1e-6)
    assert pooled.box(0, 0, 640, 480) == pytest.approx((0, 0, 640, 480))


def test_half_precision_encoders_keep_their_points():
    vision = wrap_vision(MODULES["vit"]().bfloat16())
    assert "blocks.1.attn.hook_pattern" in vision.hook_dict
    assert vision(pixels_for(vision)).dtype == torch.bfloat16


def test_a_feature_layer_is_the_value_of_its_point_and_the_last_thing_that_runs(case):
    _, _, vision = case
    x = pixels_for(vision, 1)
    ends = ("hook_resid_pre", "hook_resid_post", "mlp.hook_pre", "mlp.hook_post")
    layers = [n for n in vision.hook_dict if n.endswith(ends)][-4:] + ["hook_embed"]
    for layer in (name for name in layers if name in vision.hook_dict):
        seen = {}
        vision.hook_dict[layer].add_hook(lambda v, hook, seen=seen: seen.setdefault(hook.name, v))
        vision(x)
        vision.hook_dict[layer].remove_hooks("both")
        early = vision.at(layer)
        whole = seen[layer]
        whole = whole.flatten(2).transpose(1, 2) if whole.dim() == 4 else whole
        assert torch.equal(early(x), whole[:, early.n_prefix :])
        assert early.spec()["feature_layer"] == layer and early.d_vision == whole.shape[-1]
        points = list(early.hook_dict)
        assert points[-2:] == [layer, "hook_features"]  # in running order: nothing beyond
        early.hook_dict[layer].add_hook(lambda value, hook: value * 0)
        assert early(x).abs().max() == 0  # what is written there is what the bridge reads
        assert torch.equal(early.at("last_hidden_state")(x), vision(x))  # its hooks stay behind


# --- pixels -----------------------------------------------------------------------------------


def photo(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return Image.fromarray(noise.astype("uint8")).resize((width, height), Image.Resampling.BICUBIC)


SIZES = [(640, 480), (333, 501), (97, 224), (30, 20)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["ViT", "Beit", "CLIP", "DeiT", "Siglip"])
def test_pixels_equal_those_of_the_transformers_processor(name, size):
    for backend in ("Pil", ""):
        cls = getattr(transformers, f"{name}ImageProcessor{backend}", None)
        if cls is None:
            continue
        processor = cls()
        theirs = processor(images=photo(*size), return_tensors="pt")["pixel_values"][0]
        ours = hf_recipe(processor, (224, 224))(photo(*size))
        assert ours.shape == theirs.shape
        worst = 1e-5 if backend else 0.08  # tensor resizing rounds otherwise than PIL does
        assert (ours - theirs).abs().max() < worst
        assert (ours - theirs).abs().mean() < 1e-2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_pixels_equal_those_of_open_clip(mode, size):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    cfg = PreprocessCfg(size=60, resize_mode=mode)
    theirs = image_transform_v2(cfg, is_train=False)
    assert (open_clip_recipe(cfg)(photo(*size)) - theirs(photo(*size))).abs().max() < 1e-5
    if mode != "longest":
        assert (open_clip_recipe(theirs)(photo(*size)) - theirs(photo(*size))).abs().max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_pixels_equal_those_of_timm(mode, size):
    cfg = {
        "input_size": (3, 63, 63),
        "crop_pct": 0.9,
        "crop_mode": mode,
        "interpolation": "bicubic",
    }
    cfg |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    theirs = timm.data.create_transform(**cfg, is_training=False)(photo(*size))
    assert (timm_recipe(cfg)(photo(*size)) - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("resize", ["squash", "shortest", "longest"])
def test_a_patch_box_is_where_a_bright_square_shows(resize):
    recipe = Pixels((64, 64), resize, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    width, height = 320, 200
    for row, col in [(3, 4), (4, 1), (5, 6)]:
        x0, y0, x1, y1 = recipe.box(row, col, (8, 8), width, height)
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue  # this cell shows padding
        array = np.zeros((height, width, 3), "uint8")
        array[round(y0) : round(y1), round(x0) : round(x1)] = 255
        seen = recipe(Image.fromarray(array))[0].reshape(8, 8, 8, 8).mean((1, 3))
        assert divmod(int(seen.argmax()), 8) == (row, col) and seen[row, col] > 0.8


def test_pixels_survive_json():
    import json

    recipe = Pixels((32, 48), "longest", (40, 50), "bicubic", rounding="even", fill=(1, 2, 3))
    assert Pixels.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    plain = {"kind": "hf", "image_size": 80, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert Pixels.from_dict(plain) == Pixels((80, 80))


# --- refusals ---------------------------------------------------------------------------------


def test_refusals_are_sentences_that_say_what_to_write():
    vision = wrap("clip-rn")[1]
    with pytest.raises(CapabilityError, match="no MLP"):
        vision.weights(0)
    with pytest.raises(AddressError, match="this encoder has 5"):
        vision.weights(9)
    with pytest.raises(AddressError, match="grid of 2 x 2"):
        vision.box(2, 0, 10, 10)
    with pytest.raises(PictureError, match="Image.open"):
        vision.preprocess("photo.png")
    with pytest.raises(CapabilityError, match="transformers, open_clip or timm"):
        wrap_vision(nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="is none of"):
        Pixels((8, 8), interpolation="magic")
    with pytest.raises(CapabilityError, match="not a grid"):
        HookedVision(MODULES["vit"](), "hf", Pixels((24, 24)), n_prefix=3)
    with pytest.raises(AddressError, match=r"no feature layer '-2': there is 'last_hidden_state'"):
        vision.at("-2")
    with pytest.raises(AddressError, match=r"did you mean 'blocks.1.hook_resid_post'"):
        wrap("vit")[1].at("blocks.1.resid_post")
    assert wrap_vision(vision) is vision
    assert isinstance(from_open_clip(MODULES["clip-vit"]()), HookedVision)


def test_importing_vision_brings_in_no_model_library():
    names = ["transformers", "open_clip", "timm", "torchvision", "transformer_lens"]
    code = f"import sys, mmlens.towers.vision.wrap; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
