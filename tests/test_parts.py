"""Any three parts: objects, folders and names; a wrong one is answered with the nearest."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from mmlens import from_parts
from mmlens.families import load
from mmlens.families.limber_twins import tiny_encoder, tiny_gptj
from mmlens.families.parts import find_vision, label
from mmlens.families.toy import picture, tokenizer
from mmlens.values.errors import CapabilityError, CheckpointError, ModelError
from mmlens.values.prompt import Prompt

PROMPT = Prompt(picture(), "A picture of")


@pytest.fixture(scope="module")
def toy():
    return load("toy-gpt2")


@pytest.fixture(scope="module")
def folders(toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    toy.vision.module.save_pretrained(root / "eye")
    pixels = {"size": {"height": 32, "width": 32}, "resample": 2}
    pixels |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
    (root / "eye/preprocessor_config.json").write_text(json.dumps(pixels))
    toy.lm.hf.save_pretrained(root / "words")
    tokenizer().save_pretrained(root / "words")
    save_file(
        {k: v.contiguous() for k, v in toy.projection.state_dict().items()},
        root / "projection.safetensors",
    )
    return root


def test_parts_in_memory_give_the_model_they_came_from(toy):
    model = from_parts(toy.vision, toy.projection, toy.lm.hf, tokenizer(), name="mine")
    with torch.no_grad():
        assert torch.equal(model(PROMPT), toy(PROMPT))
    assert model.name == "mine" and model.provenance["vision"] == "ViTModel"
    again = from_parts(toy.vision, toy.projection, toy.lm)
    with torch.no_grad():
        assert torch.equal(again(PROMPT), toy(PROMPT))
    assert again.provenance["lm"] == "GPT2LMHeadModel"


def test_a_projection_in_memory_stays_as_it_is(toy):
    mine = nn.Linear(*toy.projection.weight.shape[::-1])
    model = from_parts(toy.vision, mine, toy.lm.hf, tokenizer(), dtype=torch.float64)
    assert mine.weight.requires_grad and mine.weight.dtype == torch.float32
    assert not model.projection.weight.requires_grad
    assert model.projection.weight.dtype == torch.float64


def test_parts_in_folders_give_it_too(toy, folders):
    model = from_parts(vision=str(folders / "eye"), projection=folders, lm=folders / "words")
    with torch.no_grad():
        assert torch.allclose(model(PROMPT), toy(PROMPT), atol=1e-6)
    assert model.provenance["lm"] == "words" and str(folders) not in str(model.provenance)


def test_a_fresh_projection_has_the_right_shape_and_a_seed_of_its_own(toy):
    state = torch.get_rng_state()
    one, two, three = (
        from_parts(toy.vision, None, toy.lm, seed=seed).projection for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.in_features, one.out_features) == (16, 32)
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, three.weight)
    assert one.weight.abs().max() <= 0.25 and one.bias.abs().max() > 0


def test_a_projection_may_be_any_module_that_fits(toy):
    deep = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 32))
    with torch.no_grad():
        assert from_parts(toy.vision, deep, toy.lm)(PROMPT).isfinite().all()
    with pytest.raises(CheckpointError, match=r"between ViTModel and GPT2LMHeadModel.*16 -> 32"):
        from_parts(toy.vision, nn.Sequential(nn.Linear(16, 8)), toy.lm)
    with pytest.raises(CheckpointError, match=r"8 -> 32"):
        from_parts(toy.vision, {"weight": torch.zeros(32, 8)}, toy.lm)


@pytest.mark.parametrize("kind", ["gpt-neox", "opt", "llama", "qwen", "gemma"])
def test_the_soft_prompt_path_is_hugging_faces_own_in_every_language_model(kind):
    toy = load(f"toy-{kind}")
    model = from_parts(tiny_encoder("beit"), None, toy.lm.hf, tokenizer())
    with torch.no_grad():
        x = model.vision.preprocess(picture())
        patches = model.projection(model.vision(x[None]))
        words = toy.lm.hf.get_input_embeddings()(
            torch.tensor([tokenizer()("A picture of")["input_ids"]])
        )
        theirs = toy.lm.hf(inputs_embeds=torch.cat([patches, words], 1)).logits
        assert (model(PROMPT) - theirs).abs().max() < 1e-5


def test_another_dtype_is_of_the_copy_and_not_of_the_callers_parts():
    lm, encoder = tiny_gptj(), tiny_encoder("beit")
    model = from_parts(encoder, None, lm, tokenizer(), dtype=torch.bfloat16)
    parts = (model.vision, model.projection, model.root)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.bfloat16}
    assert {p.dtype for part in (lm, encoder) for p in part.parameters()} == {torch.float32}
    with torch.no_grad():
        assert model(PROMPT).dtype == torch.bfloat16


def test_vision_folders_of_clip_and_siglip_load_the_vision_tower_alone(tmp_path):
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    small |= {"intermediate_size": 40}
    eye = small | {"image_size": 32, "patch_size": 16}
    words = small | {"vocab_size": 99, "max_position_embeddings": 8}
    for name in ("CLIP", "Siglip"):
        config = getattr(transformers, f"{name}Config")(vision_config=eye, text_config=words)
        whole = getattr(transformers, f"{name}Model")(config)
        whole.save_pretrained(tmp_path / name)
        vision = find_vision(str(tmp_path / name))
        assert type(vision.module).__name__ == f"{name}VisionModel" and vision.grid == (2, 2)
        x = torch.randn(1, 3, 32, 32)
        theirs = whole.vision_model(pixel_values=x).last_hidden_state[:, -4:]
        assert (vision(x) - theirs).abs().max() < 1e-6


@pytest.mark.parametrize(
    "vision, sentence",
    [
        ("open_clip:ViT-B-33/openai", "did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32/openay", "did you mean 'openai'"),
        ("timm:vit_base_patch16_225", "did you mean 'vit_base_patch16_224'"),
        ("tim:vit_base_patch16_224", "did you mean 'timm:vit_base_patch16_224'"),
        ("google/vit-base-patch16-225", "did you mean 'google/vit-base-patch16-224'"),
    ],
)
def test_a_misspelt_encoder_is_answered_with_the_nearest(vision, sentence, toy):
    with pytest.raises(ModelError, match=sentence):
        from_parts(vision=vision, lm=toy.lm)


def test_a_misspelt_language_model_is_answered_with_the_nearest(toy, tmp_path):
    with pytest.raises(ModelError, match="no language model 'gpt22'.*did you mean 'gpt2'"):
        from_parts(vision=toy.vision, lm="gpt22")
    with pytest.raises(CheckpointError, match="holds no language model"):
        from_parts(vision=toy.vision, lm=tmp_path)
    with pytest.raises(CheckpointError, match="holds no encoder"):
        from_parts(vision=tmp_path, lm=toy.lm)
    with pytest.raises(ModelError, match="give tokenizer="):
        from_parts(vision=toy.vision, lm=toy.lm.hf)
    with pytest.raises(ModelError, match="needs a language model"):
        from_parts(vision=None)
    with pytest.raises(CapabilityError, match="transformers, open_clip or timm"):
        from_parts(vision=nn.Linear(2, 2), lm=toy.lm)


def test_labels_of_parts_are_short():
    assert label("gpt2") == "gpt2" and label(None) == "" and label(nn.Linear(1, 1)) == "Linear"
