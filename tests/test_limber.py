"""LiMBeR's models through tiny twins: the loading code is the one that loads the real ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mmlens.families import load, models
from mmlens.families.limber import IMAGE_WORD, RECIPES
from mmlens.families.limber_twins import seeded, tiny_encoder, tiny_gptj, tiny_projection
from mmlens.families.toy import tokenizer
from mmlens.values.errors import CheckpointError
from mmlens.values.prompt import Prompt

pytest.importorskip("open_clip")
pytest.importorskip("timm")


def photo(seed: int = 0, size: tuple[int, int] = (60, 44)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype("uint8")
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=list(RECIPES))
def twin(request):
    return request.param, load(request.param, twin=True)


def test_all_six_are_listed():
    assert set(RECIPES) <= set(models()) and len(RECIPES) == 6


def test_a_picture_reaches_the_logits(twin):
    _, model = twin
    with torch.no_grad():
        one, two = (model(Prompt(photo(seed), "A picture of")) for seed in (0, 1))
    assert one.shape == two.shape and (one - two)[0, -1].abs().max() > 1e-3


def test_positions_are_patches_then_words_and_nothing_else(twin):
    name, model = twin
    soft = model.embed(Prompt(photo(), "A picture of"))
    words = len(tokenizer()("A picture of")["input_ids"])
    grid = {"beit": 16, "clip": 9, "nfrn": 1}
    patches = next(n for key, n in grid.items() if key in name)
    assert len(soft.labels[0]) == patches + words  # LiMBeR has no BOS


def test_everything_is_frozen_in_eval_mode_and_deterministic(twin):
    _, model = twin
    prompt = Prompt(photo(), "A picture of")
    assert not any(m.training for part in (model.vision, model.root) for m in part.modules())
    assert not any(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert torch.equal(model(prompt), model(prompt))


def test_the_soft_prompt_is_the_plain_linear_map_without_dropout(twin):
    """By hand, in plain torch: P E(I), one vector per patch in reading order (limber.md 2.1)."""
    name, model = twin
    recipe = RECIPES[name]
    seed_of_twin = 0
    encoder = tiny_encoder(recipe.kind, seed_of_twin)
    x = model.vision.preprocess(photo())[None]
    with torch.no_grad():
        if recipe.kind.startswith("beit"):
            features = encoder(pixel_values=x)["last_hidden_state"][:, 1:]
        elif recipe.kind == "clip":
            features = encoder.layer2(encoder.layer1(encoder.stem(x)))
            features = encoder.layer4(encoder.layer3(features))
            features = features.flatten(2).transpose(1, 2)
        else:
            features = encoder.forward_features(x).mean((2, 3))[:, None]
        state = tiny_projection(encoder, tiny_gptj(0), 0)
        vectors = features @ state["proj.weight"].float().T + state["proj.bias"].float()
        ours = model.projection(model.vision(x))
    assert (ours - vectors).abs().max() < 1e-5


def test_beit_features_are_the_raw_residual_stream():
    """pt22k keeps use_mean_pooling, so no norm follows the last block."""
    vision = load("limber-beit", twin=True).vision
    last = vision.hook_dict[f"blocks.{vision.n_layers - 1}.hook_resid_post"]
    seen = []
    last.add_hook(lambda tensor, hook: seen.append(tensor))
    features = vision(vision.preprocess(photo())[None])
    last.remove_hooks("both")
    assert torch.equal(seen[0][:, 1:], features)


def test_the_embedding_has_one_row_per_word_and_the_image_word_is_last(twin):
    """50400 rows of GPT-J become 50258; the twin's spare rows go the same way."""
    _, model = twin
    words = model.tokenizer
    assert words.convert_tokens_to_ids(IMAGE_WORD) == len(words) - 1
    assert words.pad_token == words.eos_token and words.pad_token_id == words.eos_token_id
    assert model.lm.hf.get_input_embeddings().num_embeddings == len(words)
    assert model.root.W_U.shape[-1] == len(words)
    assert IMAGE_WORD not in tokenizer().get_vocab(), "the caller's tokenizer is left alone"


def test_cutting_rows_changes_no_other_number_and_not_the_callers_model():
    lm = tiny_gptj(0)
    before = copy.deepcopy(lm.state_dict())
    model = load("limber-beit", twin=True, lm=lm)
    assert all(torch.equal(v, before[k]) for k, v in lm.state_dict().items())
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        rows = len(model.tokenizer)
        assert torch.allclose(lm(ids).logits[..., :rows], model.lm.hf(ids).logits, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("prefix", ["", "proj.", "image_prefix.proj."])
def test_proj_ckpt_in_every_dress_gives_the_same_map(dtype, prefix, tmp_path):
    encoder, lm = tiny_encoder("beit"), tiny_gptj()
    state = tiny_projection(encoder, lm)  # bf16; exact in fp32, nearly so in fp16
    dressed = {prefix + k.removeprefix("proj."): v.to(dtype) for k, v in state.items()}
    torch.save(dressed, tmp_path / "proj.ckpt")
    save_file(dressed, tmp_path / "proj.safetensors")
    for path in (tmp_path / "proj.ckpt", str(tmp_path / "proj.safetensors")):
        model = load("limber-beit", twin=True, proj=path, encoder=encoder, lm=lm)
        assert model.projection.weight.dtype == torch.float32
        assert (model.projection.weight - state["proj.weight"].float()).abs().max() < 1e-3
        assert model.provenance["projection"].startswith("proj.")


def test_nfrn50_sees_the_picture_unnormalised_and_never_flipped():
    vision = load("limber-nfrn50", twin=True).vision
    white = Image.new("RGB", (100, 70), (255, 255, 255))
    assert torch.equal(vision.preprocess(white), torch.ones(3, 64, 64))
    half = white.copy()
    half.paste((0, 0, 0), (50, 0, 100, 70))
    assert torch.equal(vision.preprocess(half)[..., :20], torch.ones(3, 64, 20))
    assert vision.grid == (1, 1) and "blocks.0.hook_resid_post" in vision.hook_dict


def test_half_precision_runs():
    model = load("limber-beit", twin=True, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = model(Prompt(photo(), "A picture of"))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


@pytest.mark.parametrize("name", list(RECIPES))
def test_without_a_projection_the_sentence_says_what_to_write(name):
    with pytest.raises(CheckpointError, match=f'load\\("{name}", proj='):
        load(name)


@pytest.mark.parametrize("name", ["limber-beit-random", "limber-nfrn50-random"])
def test_a_random_encoder_has_to_be_named(name):
    with pytest.raises(CheckpointError, match='encoder="random:0"'):
        load(name, proj={"weight": torch.zeros(32, 8)}, lm=tiny_gptj(), tokenizer=tokenizer())


def test_a_seeded_encoder_is_the_same_every_time_and_draws_nothing():
    state = torch.get_rng_state()
    one, two = (seeded("nfrn50", 3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_encoder_weights_come_from_a_file(tmp_path):
    encoder = seeded("nfrn50", 1)
    save_file(encoder.state_dict(), tmp_path / "nf.safetensors")
    projection = {"weight": torch.randn(32, 2048) * 0.02, "bias": torch.zeros(32)}
    model = load(
        "limber-nfrn50-random",
        proj=projection,
        encoder=tmp_path / "nf.safetensors",
        lm=tiny_gptj(),
        tokenizer=tokenizer(),
    )
    ours = model.vision.module.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in encoder.state_dict().items())
    assert model.vision.image_size == (384, 384)
    state = encoder.state_dict()
    state.pop("stem.conv1.weight" if "stem.conv1.weight" in state else next(iter(state)))
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match="does not fit a NormFreeNet: it lacks"):
        load(
            "limber-nfrn50-random",
            proj=projection,
            encoder=tmp_path / "less.safetensors",
            lm=tiny_gptj(),
            tokenizer=tokenizer(),
        )


def test_a_map_for_another_encoder_is_refused():
    clip = tiny_projection(tiny_encoder("clip"), tiny_gptj())
    with pytest.raises(
        CheckpointError, match=r"256 -> 32\).*BeitModel and GPTJForCausalLM.*24 -> 32"
    ):
        load("limber-beit", twin=True, proj=clip)
    with pytest.raises(CheckpointError, match="it has extra, weight"):
        load("limber-beit", twin=True, proj={"weight": torch.zeros(2, 2), "extra": torch.zeros(1)})


def test_the_paper_has_a_number_of_positions():
    encoder, lm = tiny_encoder("beit"), tiny_gptj()
    with pytest.raises(CheckpointError, match="reads 196 positions, but this encoder gives 16"):
        load(
            "limber-beit",
            proj=tiny_projection(encoder, lm),
            encoder=encoder,
            lm=lm,
            tokenizer=tokenizer(),
        )
