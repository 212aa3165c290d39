"""From a picture to pixels: as every image processor of transformers does it, or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmlens.families.parts import find_vision
from mmlens.towers.vision.pixel_recipes import open_clip_recipe, timm_recipe
from mmlens.towers.vision.pixels import Pixels
from mmlens.towers.vision.processors import hf_recipe
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.errors import CheckpointError, MMLensError, ModelError, PictureError

transformers = pytest.importorskip("transformers")


def classes() -> list[str]:
    """Every image processor class that an Auto class may answer with."""
    from transformers.models.auto.image_processing_auto import (
        IMAGE_PROCESSOR_MAPPING_NAMES as table,
    )

    each = (v.values() if isinstance(v, dict) else v for v in table.values())
    return sorted({name for names in each for name in names if name})


NOISE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (53, 79, 3)).astype("uint8"))
READ = ["ViT", "CLIP", "Siglip", "DeiT", "Beit", "Bit", "Blip", "ConvNext", "EfficientNet"]
READ += ["MobileViT", "PoolFormer", "Llava"]


def in_grey_levels(ours: torch.Tensor, theirs: torch.Tensor, recipe: Pixels) -> np.ndarray:
    assert ours.shape == theirs.shape
    spread = np.array(recipe.std)[:, None, None] / recipe.rescale
    return np.abs((ours - theirs).numpy()) * spread


@pytest.mark.parametrize("name", classes())
def test_an_image_processor_is_read_right_or_refused_in_a_sentence(name):
    try:
        processor = getattr(transformers, name)()
    except (ImportError, TypeError, AttributeError) as error:
        pytest.skip(f"{name} can't be made here without more: {error}")
    try:
        recipe = hf_recipe(processor, (224, 224))
    except MMLensError as refused:
        plain = name.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor")
        assert plain not in READ, refused  # noqa: PT017
        assert "dict" in str(refused)  # noqa: PT017
        return
    theirs = processor(images=NOISE, return_tensors="pt")["pixel_values"][0]
    off = in_grey_levels(recipe(NOISE), torch.as_tensor(theirs), recipe)
    exactly = name.endswith("Pil")  # tensors are resized with other rounding than PIL's
    assert off.max() < (0.01 if exactly else 2.6) and off.mean() < (0.01 if exactly else 0.4)


SETTINGS = {
    "ConvNext": [
        {"size": {"shortest_edge": 224}},
        {"size": {"shortest_edge": 96}, "crop_pct": 0.875},
        {"crop_pct": 0.5},
    ],
    "EfficientNet": [
        {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False},
        {"include_top": True, "do_normalize": False},
        {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0] * 3},
    ],
    "MobileViT": [{"do_flip_channel_order": True}, {"do_flip_channel_order": False}],
    "ViT": [{"size": 64, "resample": 0}, {"resample": 5, "image_mean": [0.1, 0.2, 0.3]}],
    "CLIP": [{"size": 70, "crop_size": 64}, {"crop_size": {"height": 40, "width": 72}}],
    "PoolFormer": [{"crop_pct": 0.8}],
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_settings_of_a_checkpoint_give_the_pixels_of_its_processor(kind):
    for settings in SETTINGS[kind]:
        base = f"{kind}ImageProcessor"
        cls = getattr(transformers, f"{base}Pil", None) or getattr(transformers, base)
        theirs = cls(**settings)(images=NOISE, return_tensors="pt")["pixel_values"][0]
        recipe = hf_recipe({"image_processor_type": base, **settings}, (224, 224))
        assert in_grey_levels(recipe(NOISE), theirs, recipe).max() < 0.01
        again = Pixels.from_dict(json.loads(json.dumps(recipe.to_dict())))
        assert torch.equal(again(NOISE), recipe(NOISE))


BROKEN = [
    ({"image_processor_type": "ViTImageProcessor", "do_pad": True, "pad_size": 9}, "do_pad"),
    ({"size": {"height": 8, "width": 8}, "keep_colours": "few"}, "keep_colours"),
    ({"size": {"height": 8, "width": 8}, "do_grayscale": True}, "do_grayscale"),
    ({"size": {"shortest_edge": 8}}, "a size of its own"),
    ({"size": {"shortest_edge": 8, "longest_edge": 9}}, "is new"),
    ({"do_resize": False}, "a size of its own"),
    ({"do_center_crop": True}, "no crop_size"),
    ({"size": {"height": 8, "width": 8}, "image_std": [0.5, 0.0, 0.5]}, "'std'.*numbers above 0"),
    ({"size": {"height": 8, "width": 8}, "image_mean": "grey"}, "'mean'"),
    ({"image_processor_type": "NoImageProcessor"}, "NoImageProcessor can't be made"),
    ({"image_processor_type": "ViTImageProcessor", "size": "large"}, "ViTImageProcessor"),
]


@pytest.mark.parametrize("settings, sentence", BROKEN)
def test_settings_that_are_not_understood_are_refused_by_name(settings, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        hf_recipe(settings, (8, 8))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"std": (1.0, -1.0, 1.0)}, "numbers above 0"),
        ({"std": (0.0, 1.0, 1.0)}, "numbers above 0"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
        ({"mean": (0.5,)}, "not three"),
        ({"rescale": 0.0}, "'rescale'"),
        ({"fill": (0, 0, 300)}, "0 to 255"),
        ({"resize": "magic"}, "Resize 'magic' is none of"),
        ({"channels": "GRB"}, "Channels 'GRB'"),
        ({"size": (0, 8)}, "above 0"),
        ({"size": (8, 8, 8)}, "one or two whole numbers"),
        ({"scale": (8.5, 8)}, "one or two whole numbers"),
    ],
)
def test_a_recipe_that_no_encoder_has_is_refused(wrong, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        Pixels(**{"size": (8, 8), **wrong})


@pytest.mark.parametrize("recipe", [open_clip_recipe, timm_recipe, lambda c: hf_recipe(c, (8, 8))])
def test_what_is_no_preprocessing_is_refused(recipe):
    for wrong in ("squash", 224, [0.5, 0.5], b"x"):
        with pytest.raises(CheckpointError):
            recipe(wrong)


def test_a_strip_of_a_picture_is_refused_before_it_fills_the_memory():
    recipe = Pixels((224, 224), "shortest")
    with pytest.raises(PictureError, match=r"100000 x 2 would be resized to 11200000 x 224"):
        recipe(Image.new("RGB", (100_000, 2)))
    with pytest.raises(PictureError, match=r"resized to 224 x 0"):
        Pixels((224, 224), "longest")(Image.new("RGB", (100_000, 2)))
    assert recipe(Image.new("RGB", (3_000, 2))).shape == (3, 224, 224)


def test_pixels_of_another_size_are_refused_because_their_patches_have_no_label():
    config = transformers.ViTConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=3,
        image_size=32, patch_size=8,
    )  # fmt: skip
    vision = wrap_vision(transformers.ViTModel(config))
    with pytest.raises(PictureError, match=r"are not \[batch, 3, 32, 32\]"):
        vision(torch.zeros(1, 3, 16, 16))


def test_a_folder_with_settings_inside_processor_config_is_prepared_by_them(tmp_path):
    eye = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1}
    eye |= {"num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    module = transformers.ViTModel(transformers.ViTConfig(**eye))
    module.save_pretrained(tmp_path)
    inside = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    inside |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inside}))
    assert find_vision(str(tmp_path)).pixels.mean == (0.1, 0.2, 0.3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(inside | {"do_pad": True}))
    with pytest.raises(CheckpointError, match="do_pad"):
        find_vision(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="holds no object"):
        find_vision(str(tmp_path))


@pytest.fixture
def small_open_clip(monkeypatch, tmp_path):
    """open_clip with a tiny ViT-B-32, whose openai weights are a file here, and its true model."""
    open_clip = pytest.importorskip("open_clip")
    if not hasattr(open_clip.transformer.VisionTransformer, "_embeds"):
        pytest.skip("mmlens reads the image towers of open_clip 3")
    from encoders import shake

    size = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 49, "width": 16, "heads": 2, "layers": 1}
    true = shake(open_clip.model.CLIP(16, size, text, quick_gelu=True))
    torch.save(true.state_dict(), tmp_path / "weights.pt")
    cfg = {"embed_dim": 16, "vision_cfg": size, "text_cfg": text}
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "ViT-B-32", cfg)
    monkeypatch.setitem(configs, "ViT-B-32-quickgelu", cfg | {"quick_gelu": True})
    fetch = lambda *args, **kwargs: str(tmp_path / "weights.pt")  # noqa: E731
    monkeypatch.setattr(open_clip.factory, "download_pretrained", fetch)
    return true


@pytest.mark.filterwarnings("default:QuickGELU mismatch")
@pytest.mark.parametrize("name", ["ViT-B-32/openai", "ViT-B-32-quickgelu/openai"])
def test_weights_that_were_trained_with_quickgelu_are_run_with_it(small_open_clip, name, recwarn):
    vision = find_vision(f"open_clip:{name}")
    seen = {}
    for point in ("blocks.1.mlp.hook_pre", "blocks.1.mlp.hook_post"):
        vision.hook_dict[point].add_hook(lambda value, hook: seen.__setitem__(hook.name, value))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = vision(x)
    pre, post = seen.values()
    assert torch.allclose(post, pre * torch.sigmoid(1.702 * pre), atol=1e-6)
    small_open_clip.visual.output_tokens = True
    theirs = small_open_clip.visual(x)[1]
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert vision.pixels.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert not [told for told in recwarn if "QuickGELU" in str(told.message)]


def test_a_tag_brings_its_own_preprocessing_and_a_wrong_pair_is_refused(
    small_open_clip, monkeypatch
):
    import open_clip

    tags = open_clip.pretrained._PRETRAINED
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"}
    own |= {"resize_mode": "squash", "url": "", "quick_gelu": False}
    monkeypatch.setitem(tags, "ViT-B-32", {**tags["ViT-B-32"], "own": own})
    monkeypatch.setitem(tags, "ViT-B-32-quickgelu", {"own": own})
    pixels = find_vision("open_clip:ViT-B-32/own").pixels
    assert (pixels.mean, pixels.std) == (own["mean"], own["std"])
    assert (pixels.resize, pixels.interpolation) == ("squash", "bilinear")
    with pytest.raises(ModelError, match="write 'open_clip:ViT-B-32/own'"):
        find_vision("open_clip:ViT-B-32-quickgelu/own")


def test_weights_that_cannot_be_read_are_refused_in_a_sentence(small_open_clip, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="open_clip could not load"):
        find_vision(f"open_clip:ViT-B-32/{broken}")
    with pytest.raises(ModelError, match="timm has no weights 'vit_tiny_patch16_224.magic'"):
        find_vision("timm:vit_tiny_patch16_224.magic")


def test_a_timm_model_inside_transformers_is_that_timm_model():
    pytest.importorskip("timm")
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224",
        model_args={"depth": 1, "embed_dim": 24, "num_heads": 3, "img_size": 32},
    )
    try:
        wrapped = transformers.TimmWrapperModel(config).eval()
    except TypeError as error:
        pytest.skip(f"this release can't make one with arguments of its own: {error}")
    vision = wrap_vision(wrapped, {"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3)})
    x = torch.randn(1, 3, 32, 32)
    theirs = wrapped.timm_model.forward_features(x)[:, 1:]
    assert vision.grid == (2, 2) and torch.allclose(vision(x), theirs, atol=1e-6)
    assert vision.pixels.mean == (0.1, 0.2, 0.3)


def test_a_small_relative_bias_keeps_attention_closed_where_it_would_be_left_out():
    config = transformers.SwinConfig(
        image_size=32, patch_size=8, embed_dim=24, depths=[1], num_heads=[3], window_size=4
    )
    module = transformers.SwinModel(config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "bias_table" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.05)
    vision = wrap_vision(module)
    x = torch.randn(1, 3, 32, 32, generator=draw)
    for point in vision.hook_dict.values():
        point.add_hook(lambda value, hook: None)
    theirs = module(pixel_values=x).last_hidden_state
    assert (vision(x) - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_masked_autoencoders_see_the_whole_picture_in_reading_order():
    config = transformers.ViTMAEConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=3,
        image_size=32, patch_size=8,
    )  # fmt: skip
    module = transformers.ViTMAEModel(config).eval()
    vision = wrap_vision(module)
    assert (vision.grid, vision.n_prefix) == ((4, 4), 1) and module.config.mask_ratio == 0.75
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(vision(x), vision(x))


def test_the_tokens_before_the_patches_may_be_said():
    from encoders import ENCODERS

    try:
        module, prepared = ENCODERS["hf:DINOv3ConvNextModel"]()
    except AttributeError as error:
        pytest.skip(f"this release has no such class: {error}")
    vision = wrap_vision(module, prepared, n_prefix=1)
    x = torch.randn(1, 3, *vision.image_size)
    theirs = module(pixel_values=x).last_hidden_state[:, 1:]
    assert vision.grid == (2, 2) and torch.allclose(vision(x), theirs, atol=1e-5)


def test_mean_and_deviation_of_the_other_order_of_channels_are_in_that_order():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    recipe = Pixels((8, 8), channels="BGR", mean=(0.0, 0.0, 0.5), std=(1.0, 1.0, 0.5))
    assert recipe(red)[:, 0, 0].tolist() == [0.0, 0.0, 1.0]
