"""Qwen3-VL adds pictures again behind its first layers: what reaches the language model."""

from __future__ import annotations

import pytest
import torch
import transformers
from bridges import off
from native_twins import photo, twin
from packaging.version import Version

import mmlens as mm
from mmlens.families.native import SINCE
from mmlens.patching import Pair
from mmlens.towers.vision.packed_eye import PackedEye
from mmlens.values.errors import PromptError

WORDS = "A picture of"


@pytest.fixture(scope="module")
def model():
    if Version(transformers.__version__) < Version(SINCE["qwen3_vl"]):
        pytest.skip("read with a later transformers")
    return mm.from_model(*twin("qwen3_vl"))


def prompt(seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(60, 40, seed), WORDS)


def patches(model) -> torch.Tensor:
    return torch.tensor([isinstance(one, mm.Patch) for one in model.embed(prompt()).labels[0]])


@torch.no_grad()
def test_what_is_added_is_a_site_and_the_stream_holds_it(model):
    _, kept = model.run_with_cache(prompt())
    where = patches(model)
    for layer in (0, 1):
        block = f"blocks.{layer}."
        added = kept[block + "hook_deepstack"]
        whole = kept[block + "hook_resid_mid"] + kept[block + "hook_mlp_out"] + added
        assert off(whole, kept[block + "hook_resid_post"]) < 1e-5
        assert off(kept[block + "hook_resid_post"], kept[f"blocks.{layer + 1}.hook_resid_pre"]) == 0
        assert added[0, ~where].abs().max() == 0 and added[0, where].abs().max() > 0.1
    assert "blocks.2.hook_deepstack" not in kept
    table = model.sites
    assert list(table[table["site"] == "deepstack"]["layers"]) == [(0, 1)]
    read = mm.activations(model, prompt(), "deepstack")
    assert read.of("layer") == (0, 1)


@torch.no_grad()
def test_the_picture_is_gone_with_all_its_roads_and_not_with_the_embedding_alone(model):
    one, other = prompt(), prompt(1)
    embed = mm.Edit("embed", 0.0, pos=mm.Patch)
    alone, both = model.edit(embed), model.edit(embed, mm.Edit("deepstack", 0.0))
    before = model.edit(mm.Edit("soft_prompt", 0.0))
    assert off(alone(one), alone(other)) > 1e-3
    assert off(both(one), both(other)) == 0.0
    assert off(before(one), both(one)) < 1e-6
    first = model.edit(mm.Edit("deepstack", 0.0, layer=0, pos=[mm.Patch(0, 0)]))
    assert off(first(one), model(one)) > 1e-4


def test_patching_the_soft_prompt_gives_the_other_run_and_the_embedding_says_what_stays(model):
    pair = Pair(prompt(), prompt(1))
    metric = lambda logits: logits[5]  # noqa: E731
    found = mm.patching.patch(model, pair, metric, "soft_prompt", by=())
    assert float(found.values) == pytest.approx(found.about["clean"], abs=1e-5)
    some = mm.patching.patch(model, pair, metric, "embed", by=(), pos=mm.Patch)
    assert abs(float(some.values) - some.about["clean"]) > 1e-3
    assert "behind layers 0 and 1" in some.about["stays"]
    assert "stays" not in found.about
    each = mm.patching.patch(model, pair, metric, "deepstack", layer=1, by=())
    clean = mm.activations(model, pair.clean, "deepstack", layer=1)
    edited = model.edit(mm.Edit("deepstack", clean, layer=1))
    with torch.no_grad():
        assert float(each.values) == pytest.approx(float(edited(pair.corrupt)[0, -1, 5]), abs=1e-5)


def test_attribution_reaches_the_picture_by_every_road(model):
    one = prompt()
    found = mm.attribute_picture(model, one, 5, after="", steps=32)
    assert float(found.values.sum()) == pytest.approx(found.about["change"], rel=0.02, abs=1e-3)
    flat = model.edit(mm.Edit("soft_prompt", lambda x: x.mean(-2, keepdim=True).expand_as(x)))
    with torch.no_grad():
        effect = float(model(one)[0, -1, 5] - flat(one)[0, -1, 5])
    assert found.about["change"] == pytest.approx(effect, abs=1e-4)
    draw = torch.Generator().manual_seed(0)

    def moved(by: float) -> float:
        def change(x, hook):
            return x + by * torch.randn(x.shape, generator=draw.manual_seed(0))

        with torch.no_grad():
            return float(model.run_with_hooks(one, [("vision.hook_features", change)])[0, -1, 5])

    def grown(x, hook):
        kept["x"] = x.detach().requires_grad_()
        return kept["x"]

    kept: dict[str, torch.Tensor] = {}
    with torch.enable_grad():
        model.run_with_hooks(one, [("vision.hook_features", grown)])[0, -1, 5].backward()
    direction = torch.randn(kept["x"].shape, generator=draw.manual_seed(0))
    truth = (moved(1e-2) - moved(-1e-2)) / 2e-2
    assert float((kept["x"].grad * direction).sum()) == pytest.approx(truth, rel=0.02, abs=1e-3)


def test_direct_logits_add_up_where_a_picture_stands(model):
    shares = mm.patching.direct_logits(model, prompt(), 5, pos=mm.Patch(0, 0))
    parts = shares.of("part")
    assert [one for one in parts if one.startswith("deepstack")] == ["deepstack 0", "deepstack 1"]
    total = float(shares.values.sum()) + shares.about["bias"]
    assert total == pytest.approx(shares.about["logit"], abs=1e-4)


@torch.no_grad()
def test_prompts_in_every_form_keep_what_is_added(model):
    one = prompt()
    truth, soft = model(one), model.embed(one)
    assert off(model(soft), truth) < 1e-6
    tokens = model.to_tokens(one)
    assert off(model(tokens), truth) < 1e-6
    tokens = torch.cat([tokens, tokens])[1:]
    assert off(model(tokens), truth) < 1e-6
    bare = mm.Prompt(photo(60, 40), WORDS, template=False)
    _, cache = model.forward(bare, return_type="logits_and_cache")
    more = model.forward(" dog", past_key_values=cache)
    assert off(more[0, -1], model(bare + " dog")[0, -1]) < 1e-5
    noised = mm.patching.soft_noise(model, one)
    assert off(noised.deep, soft.deep) > 0.1 and off(model(noised), truth) > 1e-3
    with pytest.raises(PromptError, match="does not fit"):
        mm.load("toy-gpt2")(soft)


@torch.no_grad()
def test_patches_are_in_order_in_bfloat16_and_beside_learned_positions():
    eye = PackedEye(twin("qwen3_vl")[0].model.visual)
    pixels = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    exact = eye(pixels)
    assert sorted(eye.packed.inside.tolist()) == list(range(400))
    rough = eye.to(torch.bfloat16)
    rough.packed.entering = torch.arange(0)  # measured anew
    assert off(rough(pixels.bfloat16()).float(), exact) < 0.1 * float(exact.abs().max())
    assert sorted(rough.packed.inside.tolist()) == list(range(400))
