"""A dual encoder as a hooked model: its numbers are its library's, its scores predict ablations."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dual_twins import DUALS, MORE, RESNET, TEXT, TEXTS, VIT, open_clip_twin
from PIL import Image

import mmlens as mm
from mmlens import Edit, Neuron, Patch, Prompt
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    ModelError,
    PromptError,
    SiteError,
    TargetError,
)
from mmlens.values.labels import Marker, Padding, Token
from mmlens.values.sites import SITES

pytest.importorskip("open_clip")
DRAW = np.random.default_rng(0)
PHOTO, OTHER = (Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8")) for _ in range(2))
NAMES = list(DUALS)


@pytest.fixture(scope="module")
def made():
    """Each twin once: (its library's model, its tokenizer, the hooked model in float64)."""
    kept = {}

    def make(name: str):
        if name not in kept:
            model, preprocess, tokenizer = (DUALS | MORE)[name]()
            hooked = mm.from_model(model, preprocess, tokenizer, name=name, dtype="float64")
            kept[name] = model.double(), tokenizer, hooked
        return kept[name]

    return make


@pytest.fixture(scope="module")
def clip(made) -> mm.HookedDualEncoder:
    return made("open_clip ViT")[2]


def of_flava(model, pixels, ids, mask) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """By the class with heads, which compares what the model projects of its CLS tokens."""
    from transformers import FlavaForPreTraining

    model.config.init_codebook = False  # of codes of pictures, which nothing here predicts
    heads = FlavaForPreTraining(model.config).double().eval()
    heads.flava = model
    out = heads(pixel_values=pixels, input_ids=ids, attention_mask=mask, return_loss=False,
                input_ids_masked=ids, skip_unmasked_multimodal_encoder=True)  # fmt: skip
    image = F.normalize(model.image_projection(out.image_embeddings[:, 0]), dim=-1)
    text = F.normalize(model.text_projection(out.text_embeddings[:, 0]), dim=-1)
    return image, text, out.contrastive_logits_per_image


def plainly(model, tokenizer, pixels, texts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(image embeddings, text embeddings, logits) by the library's own code."""
    if hasattr(model, "encode_image"):
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(tokenizer(texts), normalize=True)
        logits = model.logit_scale.exp() * image @ text.T
        bias = getattr(model, "logit_bias", None)
        return image, text, logits if bias is None else logits + bias
    fixed = "Siglip" in type(model).__name__
    how = {"padding": "max_length", "max_length": 12} if fixed else {"padding": True}
    read = tokenizer(texts, return_tensors="pt", **how)
    mask = {} if fixed else {"attention_mask": read["attention_mask"]}
    seen = {"pixel_values": pixels}
    if "Siglip2" in type(model).__name__:  # of 4 x 4 patches of 8 x 8 pixels
        whole = F.unfold(pixels, 8, stride=8).transpose(1, 2).unflatten(2, (3, 64))
        cut = whole.transpose(2, 3).flatten(2)
        seen = {"pixel_values": cut, "pixel_attention_mask": torch.ones(cut.shape[:2]),
                "spatial_shapes": torch.tensor([[4, 4]] * len(cut))}  # fmt: skip
    if "Flava" in type(model).__name__:
        return of_flava(model, pixels, read["input_ids"], mask["attention_mask"])
    out = model(**seen, input_ids=read["input_ids"], **mask)
    return out.image_embeds, out.text_embeds, out.logits_per_image


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_embeddings_and_logits_are_those_of_the_library(made, name):
    model, tokenizer, hooked = made(name)
    pixels = torch.stack([hooked.vision.preprocess(p) for p in (PHOTO, OTHER)]).double()
    with torch.no_grad():
        image, text, logits = plainly(model, tokenizer, pixels, TEXTS)
    torch.testing.assert_close(mm.embed(hooked, [PHOTO, OTHER]), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(mm.embed(hooked, TEXTS), text, atol=1e-5, rtol=0)
    torch.testing.assert_close(hooked.run([PHOTO, OTHER, *TEXTS]), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_hook_point_fires_has_a_gradient_and_acts(made, name):
    hooked = made(name)[2]
    table = mm.audit(hooked)
    dead = table[~(table.fires & table.differentiable & table.acts)].name.tolist()
    pools_cls = name in ("open_clip ViT", "transformers CLIP")
    assert dead == (["vision.hook_features"] if pools_cls else [])
    points = set(table.name)
    assert {"vision.hook_embedding", "text.hook_embedding", "text.hook_embed"} <= points
    every = {f"text.blocks.{layer}.{place}" for layer in range(3) for place in (
        "hook_resid_pre", "attn.hook_pattern", "attn.hook_z", "mlp.hook_pre", "mlp.hook_post",
        "hook_mlp_out", "hook_resid_post")}  # fmt: skip
    assert every <= points


def sampled(scores: mm.Scores, tower: str, n: int = 24) -> list[tuple[Neuron, float]]:
    """Units and the sum of each one's scores over positions, drawn over all layers."""
    totals = scores.sum(*(axis for axis in scores.axes if axis in ("pos", "row", "col")))
    chosen = np.random.default_rng(1).choice(totals.values.numel(), n, replace=False)
    n_units = totals.values.shape[-1]
    return [
        (Neuron(totals.of("layer")[at // n_units], int(at % n_units), tower),
         float(totals.values.flatten()[at])) for at in chosen
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_a_score_predicts_what_silencing_by_one_per_cent_does(made, name, tower):
    hooked = made(name)[2]
    prompt, of = (PHOTO, TEXTS[0]) if tower == "vision" else (TEXTS[0], PHOTO)
    site, how = f"{tower}.neurons", {"point": "post"}
    if tower == "vision" and "ResNet" in name:
        site, how = "vision.resid_post", {"site": "vision.resid_post", "layer": 2}
    scores = mm.attribute(hooked, prompt, of=of, **how)
    plain, predicted, measured = hooked.run([PHOTO, TEXTS[0]]), [], []
    for neuron, score in sampled(scores, tower):
        edited = hooked.edit(Edit(site, lambda x: 0.99 * x, neuron))
        predicted.append(0.01 * score)
        measured.append(float(plain - edited.run([PHOTO, TEXTS[0]])))
    assert np.std(predicted) > 0
    assert np.corrcoef(predicted, measured)[0, 1] >= 0.999
    np.testing.assert_allclose(predicted, measured, rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("name", MORE)
def test_in_other_text_encoders_a_layers_score_predicts_its_silencing_and_points_act(made, name):
    hooked = made(name)[2]
    scores = mm.attribute(hooked, TEXTS[0], of=PHOTO, point="post")
    plain = hooked.run([PHOTO, TEXTS[0]])
    for layer in range(3):
        less = hooked.edit(Edit("text.neurons", lambda x: 0.999 * x, layer=layer))
        effect = float(plain - less.run([PHOTO, TEXTS[0]]))
        predicted = 0.001 * float(scores.sel(layer=layer).values.sum())
        assert effect == pytest.approx(predicted, rel=0.02, abs=1e-6)
        for tower, where in (("text", layer), ("vision", 0)):
            zero = hooked.edit(Edit(f"{tower}.resid_post", 0.0, layer=where))
            assert not torch.allclose(zero.run([PHOTO, TEXTS[0]]), plain)


def test_a_pair_is_explained_from_both_sides_alike(clip):
    from_photo = mm.attribute(clip, PHOTO, of=TEXTS[0], site="text.neurons", point="post")
    from_text = mm.attribute(clip, TEXTS[0], of=PHOTO, point="post")
    assert from_text.about["tower"] == "text"
    assert mm.attribute(clip, PHOTO, of=TEXTS[0]).about["tower"] == "vision"
    torch.testing.assert_close(from_photo.values, from_text.values)
    both = mm.attribute(clip, Prompt(PHOTO, TEXTS[0]), point="post")
    torch.testing.assert_close(
        both.values, mm.attribute(clip, PHOTO, of=TEXTS[0], point="post").values
    )


def test_the_score_of_a_direction_is_the_difference_of_the_scores_of_two_texts(clip):
    ours, theirs = mm.embed(clip, TEXTS)
    along = ours - theirs
    cosines = [mm.attribute(clip, PHOTO, of=text, target="cosine").values for text in TEXTS]
    found = mm.attribute(clip, PHOTO, of=along, target="cosine").values * along.norm()
    torch.testing.assert_close(found, cosines[0] - cosines[1])
    logit = mm.attribute(clip, PHOTO, of=TEXTS[0]).values
    torch.testing.assert_close(logit, clip.scale * cosines[0])


def test_a_cls_token_is_a_position_and_holds_all_last_layer_score(clip):
    scores = mm.attribute(clip, PHOTO, of=TEXTS[0])
    assert scores.of("pos")[:2] == (Marker("CLS", 0), Patch(0, 0))
    last = scores.sel(layer=2).values.abs().sum(-1)
    assert last[0] > 0
    assert (last[1:] == 0).all()
    assert (scores.sel(layer=1).values.abs().sum(-1) > 0).all()


def test_tokens_are_positions_and_padding_after_a_text_is_left_out(clip, made):
    scores = mm.attribute(clip, TEXTS[0], of=PHOTO)
    pieces = ("<s>", *TEXTS[0].split(), "</s>")
    assert scores.of("pos") == tuple(Token(piece, at) for at, piece in enumerate(pieces))
    assert scores.sel(pos=-1).about["pos"] == "</s>"
    found = mm.activations(clip, TEXTS[1], "text.resid_post", layer=1)
    assert [str(label) for label in found.of("pos")] == ["<s>", "two", "cats", "</s>"]
    [row] = clip.picture_rows([Prompt(TEXTS[1])], SITES["text.embed"])
    assert [type(label) for label in row] == [Token] * 4 + [Padding] * 8
    siglip = made("open_clip SigLIP")[2]
    assert siglip.text.reads_padding
    assert len(mm.attribute(siglip, TEXTS[1], of=PHOTO).of("pos")) == 12


def test_padding_of_a_causal_text_encoder_changes_nothing(clip):
    ids = clip.read([TEXTS[1]]).ids.clone()
    before = mm.embed(clip, ids)
    changed = ids.clone()
    changed[:, 5:] = 7
    torch.testing.assert_close(mm.embed(clip, changed), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_patched_from_another_picture_or_text_gives_its_logits(made, name):
    hooked = made(name)[2]
    site = "vision.resid_post"
    there = mm.activations(hooked, OTHER, site, layer=1)
    patched = hooked.edit(Edit(site, there, layer=1))
    torch.testing.assert_close(patched.run([PHOTO, TEXTS[0]]), hooked.run([OTHER, TEXTS[0]]))
    word = "a photo of a cat"
    there = mm.activations(hooked, word, "text.resid_post", layer=0)
    patched = hooked.edit(Edit("text.resid_post", there.values, layer=0, pos=slice(None)))
    torch.testing.assert_close(patched.run([PHOTO, TEXTS[0]]), hooked.run([PHOTO, word]))


def test_edits_at_patches_and_tokens_read_there_and_nowhere_else(clip):
    edited = clip.edit(
        Edit("vision.resid_post", 0.0, layer=0, pos=Patch(1, 2)),
        Edit("text.resid_post", 0.0, layer=0, pos="photo"),
    )
    for prompt, site, at in ((PHOTO, "vision", Patch(1, 2)), (TEXTS[0], "text", "photo")):
        found = mm.activations(edited, prompt, f"{site}.resid_post", layer=0)
        before = mm.activations(clip, prompt, f"{site}.resid_post", layer=0)
        same = (found.values == before.values).all(-1)
        assert (found.sel(pos=at).values == 0).all()
        assert (~same).sum() == 1
    assert not torch.equal(edited.run([PHOTO, TEXTS[0]]), clip.run([PHOTO, TEXTS[0]]))


def test_a_cache_holds_the_tower_that_read_and_no_hook_stays(made):
    model, _tokenizer, clip = made("open_clip ViT")
    plain = clip.run(PHOTO)
    out, cache = clip.run_with_cache(PHOTO)
    assert cache["vision.blocks.2.mlp.hook_post"].shape == (1, 17, 96)
    assert not any(name.startswith("text.") for name in cache)
    torch.testing.assert_close(out, plain, atol=1e-12, rtol=0)
    _, both = clip.run_with_cache([PHOTO, *TEXTS])
    assert both["text.blocks.0.hook_resid_pre"].shape == (2, 12, 24)
    assert not any(point._forward_hooks for point in clip.hook_points())
    assert not any(part._forward_hooks for part in model.modules())
    assert torch.equal(clip.run(PHOTO), plain)


def test_the_embedding_is_a_site_in_both_towers(clip):
    found = mm.activations(clip, PHOTO, "vision.embedding")
    assert found.axes == ("dim",)
    torch.testing.assert_close(F.normalize(found.values, dim=-1), mm.embed(clip, PHOTO)[0])
    steered = clip.edit(Edit("text.embedding", found.values))
    assert float(steered.run([PHOTO, TEXTS[0]])) == pytest.approx(clip.scale)
    pushed = mm.attribute(clip, PHOTO, of=TEXTS[0], site="vision.embedding")
    # a cosine doesn't depend on the length of an embedding (Euler: its gradient is orthogonal)
    assert float(pushed.values.sum()) == pytest.approx(0.0, abs=1e-9)


def test_zero_shot_gives_the_softmax_of_the_logits_and_siglip_a_sigmoid(made):
    for name in ("open_clip ViT", "open_clip SigLIP"):
        _, _, hooked = made(name)
        found = mm.zero_shot(hooked, [PHOTO, OTHER], TEXTS)
        assert found.axes == ("quantity", "picture", "text")
        assert found.of("text") == tuple(TEXTS)
        logits = hooked.run([PHOTO, OTHER, *TEXTS])
        torch.testing.assert_close(found.sel(quantity="logit").values, logits)
        cosine = (logits - hooked.bias) / hooked.scale
        torch.testing.assert_close(found.sel(quantity="cosine").values, cosine)
        right = logits.softmax(-1) if name.endswith("ViT") else 1 / (1 + (-logits).exp())
        torch.testing.assert_close(found.sel(quantity="probability").values, right)
    assert hooked.bias != 0


def test_a_class_of_several_texts_is_the_mean_of_their_unit_embeddings(clip):
    found = mm.zero_shot(clip, PHOTO, {"dog": ["a photo of a dog", "a dog"], "cats": "two cats"})
    one, two, _ = mm.embed(clip, ["a photo of a dog", "a dog", "two cats"])
    mean = (one + two) / (one + two).norm()
    right = float(mm.embed(clip, PHOTO)[0] @ mean)
    assert float(found.sel(quantity="cosine", picture=0, text="dog").values) == pytest.approx(right)


def test_embed_keeps_the_order_of_pictures_and_texts(clip):
    mixed = mm.embed(clip, [TEXTS[0], PHOTO, TEXTS[1], OTHER], batch=1)
    torch.testing.assert_close(mixed[[0, 2]], mm.embed(clip, TEXTS))
    torch.testing.assert_close(mixed[[1, 3]], mm.embed(clip, [PHOTO, OTHER]))
    torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(4, dtype=mixed.dtype))


def test_a_unit_of_either_tower_is_explained_by_earlier_ones(clip):
    for prompt, tower in ((PHOTO, "vision"), (TEXTS[0], "text")):
        neuron = Neuron(2, 5, tower)
        scores = mm.attribute(clip, prompt, of=neuron, layer=[0, 1])
        assert scores.about["of"] == f"{tower}.L2.5"
        assert scores.values.abs().sum() > 0
    with pytest.raises(AddressError, match="no vision.L2.999"):
        mm.attribute(clip, PHOTO, of=Neuron(2, 999, "vision"), layer=0)


def test_copies_and_pickles_give_the_same_and_have_points_of_their_own(clip):
    for other in (copy.deepcopy(clip), pickle.loads(pickle.dumps(clip))):
        torch.testing.assert_close(other.run([PHOTO, *TEXTS]), clip.run([PHOTO, *TEXTS]))
        assert list(other.hook_dict) == list(clip.hook_dict)
        clip.add_hook("vision.hook_embedding", lambda value, hook: value * 0 + 1)
        assert not torch.allclose(other.run(PHOTO), clip.run(PHOTO))
        clip.reset_hooks()
    half = mm.from_model(*DUALS["open_clip ViT"](), dtype="bfloat16")
    assert half.run([PHOTO, *TEXTS]).dtype == torch.bfloat16


def test_a_folder_of_transformers_is_loaded_and_a_half_or_damaged_one_refused(tmp_path):
    model, _, tokenizer = DUALS["transformers CLIP"]()
    model.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    loaded = mm.load(tmp_path / "whole")
    same = mm.from_model(model, None, tokenizer)
    torch.testing.assert_close(loaded.run([PHOTO, *TEXTS]), same.run([PHOTO, *TEXTS]))
    (tmp_path / "whole" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises((ModelError, mm.MMLensError), match="dual encoder"):
        mm.load(tmp_path / "whole")


@pytest.mark.parametrize("name", ["open_clip ViT", "open_clip ResNet", "transformers SigLIP"])
def test_a_saved_dual_encoder_is_the_same_when_loaded_and_a_changed_weight_is_noticed(
    name, tmp_path
):
    model, _, tokenizer = DUALS[name]()
    arch = {
        "open_clip ViT": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT},
        "open_clip ResNet": {"embed_dim": 16, "vision_cfg": RESNET, "text_cfg": TEXT},
    }.get(name)
    saved = mm.from_model(model, None, tokenizer, name="tiny", arch=arch)
    saved.save(tmp_path / "tiny")
    loaded = mm.load(tmp_path / "tiny")
    ids = torch.arange(1, 13)[None]
    assert (loaded.name, loaded.scale, loaded.bias) == ("tiny", saved.scale, saved.bias)
    assert loaded.vision.pixels == saved.vision.pixels
    torch.testing.assert_close(loaded.run([PHOTO, OTHER]), saved.run([PHOTO, OTHER]))
    torch.testing.assert_close(loaded.run(ids), saved.run(ids))
    assert loaded.provenance["sha256"]
    loaded.save(tmp_path / "again")
    with pytest.raises(CapabilityError, match="1 edits, which are not weights"):
        loaded.edit(Edit("text.embedding", 0.0)).save(tmp_path / "edited")
    [file] = (tmp_path / "tiny").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(mm.MMLensError, match="were changed since it was saved"):
        mm.load(tmp_path / "tiny")


def test_flava_is_taken_with_its_heads_and_saved_by_its_library(made, tmp_path):
    from transformers import FlavaForPreTraining

    model, tokenizer, hooked = made("FLAVA")
    heads = FlavaForPreTraining.__new__(FlavaForPreTraining)
    torch.nn.Module.__init__(heads)
    heads.flava = model
    same = mm.from_model(heads, None, tokenizer)
    torch.testing.assert_close(same.run([PHOTO, *TEXTS]), hooked.run([PHOTO, *TEXTS]))
    with pytest.raises(mm.MMLensError, match="contrastive part of its model alone, without"):
        hooked.save(tmp_path / "half")
    model.float().save_pretrained(tmp_path / "whole")
    model.double()
    tokenizer.save_pretrained(tmp_path / "whole")
    loaded = mm.load(tmp_path / "whole", dtype="float64")
    torch.testing.assert_close(loaded.run([PHOTO, *TEXTS]), hooked.run([PHOTO, *TEXTS]))
    points = set(mm.audit(hooked).name)
    assert {"text.blocks.0.hook_attn_out", "text.blocks.0.hook_mlp_out"} <= points
    [named] = hooked.read(TEXTS[:1]).labels
    assert str(named[0]).strip() == "[CLS]"


def test_a_model_of_open_clip_without_its_configuration_is_not_saved(tmp_path):
    with pytest.raises(mm.MMLensError, match="arch='RN50x4'"):
        mm.from_model(*open_clip_twin(VIT)).save(tmp_path / "tiny")


def test_names_that_do_not_exist_or_cannot_be_fetched_are_answered_in_a_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="no model 'ViT-B-33'"):
        mm.load("open_clip:ViT-B-33/openai")
    with pytest.raises(ModelError, match="no weights 'opnai' for ViT-B-32"):
        mm.load("open_clip:ViT-B-32/opnai")
    with pytest.raises(ModelError, match="names no weights: write 'open_clip:RN50x4/openai'"):
        mm.load("open_clip:RN50x4")
    with pytest.raises(ModelError, match="no model 'nobody/clip'"):
        mm.load("nobody/clip")


def test_what_cannot_be_asked_is_refused_in_a_sentence(clip):
    with pytest.raises(PromptError, match="2 pictures and 0 texts"):
        mm.attribute(clip, PHOTO, of=OTHER)
    with pytest.raises(TargetError, match="nothing to compare with"):
        mm.attribute(clip, PHOTO)
    with pytest.raises(TargetError, match="no target 'prob'"):
        mm.attribute(clip, PHOTO, of=TEXTS[0], target="prob")
    with pytest.raises(TargetError, match="no direction of the shared space: give 16"):
        mm.attribute(clip, PHOTO, of=torch.ones(3))
    with pytest.raises(PromptError, match="more than one embedding"):
        mm.embed(clip, Prompt(PHOTO, "a dog"))
    with pytest.raises(ArgumentError, match="generates no words"):
        mm.attribute(clip, PHOTO, of=TEXTS[0], after="")
    with pytest.raises(SiteError, match="is in the tower 'lm'"):
        clip.edit(Edit("neurons", 0.0, Neuron(0, 0)))
    with pytest.raises(CapabilityError, match="compares pictures with texts"):
        mm.zero_shot(mm.from_parts(vision=clip.vision), PHOTO, TEXTS)
    with pytest.raises(CapabilityError, match="has an unembedding"):
        mm.decode(clip, [])
    with pytest.raises(PromptError, match="read from texts"):
        mm.activations(clip, PHOTO, "text.neurons", layer=0)
    with pytest.raises(ArgumentError, match="is no module"):
        mm.from_model("ViT-B-32")
    with pytest.raises(CapabilityError, match="Linear is no dual encoder"):
        mm.from_model(torch.nn.Linear(2, 2))


def test_a_text_needs_a_tokenizer_of_the_encoders_size_and_ids_do_not():
    model, _, _ = open_clip_twin(VIT)
    bare = mm.from_model(model)
    assert bare.run(torch.arange(12)[None]).shape == (1, 16)
    with pytest.raises(PromptError, match="no tokenizer"):
        bare.run("a dog")
    with pytest.raises(PromptError, match="knows 32 words"):
        bare.run(torch.full((1, 12), 99))
    with pytest.raises(PromptError, match="up to 12 positions"):
        bare.run(torch.zeros(1, 40, dtype=torch.long))
