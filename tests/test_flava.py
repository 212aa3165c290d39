"""FLAVA's multimodal encoder: its answers are its class's, and its units predict ablations."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from dual_twins import DUALS, hf_flava
from PIL import Image
from verb_calls import refusals, verbs

import mmlens as mm
from mmlens import Edit, Neuron, Patch, Prompt, patching, relevance
from mmlens.patching import metrics
from mmlens.values.errors import ArgumentError, CapabilityError, PromptError, TargetError
from mmlens.values.labels import Marker, Padding, Token
from mmlens.values.sites import SITES

DRAW = np.random.default_rng(0)
PHOTO, OTHER = (Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8")) for _ in range(2))
TEXT, MASKED = "a photo of a dog", "a photo of a [MASK]"
PAIR, HIDDEN = Prompt(PHOTO, TEXT), Prompt(PHOTO, MASKED)
TOWERS = ("vision", "text", "multimodal")


@pytest.fixture(scope="module")
def flava():
    model, _, tokenizer = hf_flava(heads=True)
    return model.double(), tokenizer


@pytest.fixture(scope="module")
def match(flava) -> mm.HookedMultimodalEncoder:
    return mm.from_model(flava[0], None, flava[1], multimodal="match", name="flava")


@pytest.fixture(scope="module")
def words(flava) -> mm.HookedMultimodalEncoder:
    return mm.from_model(flava[0], None, flava[1], multimodal="words", name="flava")


@pytest.fixture(scope="module")
def states(flava) -> mm.HookedMultimodalEncoder:
    return mm.from_model(flava[0], None, flava[1], multimodal="states", name="flava")


def asked(flava, hooked, pictures, texts):
    """What the class with its heads answers, texts padded to the longest."""
    model, tokenizer = flava
    read = tokenizer(texts, return_tensors="pt", padding=True)
    pixels = torch.stack([hooked.vision.preprocess(one) for one in pictures]).double()
    with torch.no_grad():
        return read["input_ids"], model(
            pixel_values=pixels, input_ids=read["input_ids"], input_ids_masked=read["input_ids"],
            attention_mask=read["attention_mask"], return_loss=False,
        )  # fmt: skip


def test_states_match_and_words_are_those_of_the_class_in_a_batch_with_padding(
    flava, match, words, states
):
    texts = [MASKED, "two [MASK]"]
    pairs = [Prompt(PHOTO, texts[0]), Prompt(OTHER, texts[1])]
    ids, theirs = asked(flava, match, [PHOTO, OTHER], texts)
    close = {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(states.run(pairs), theirs.multimodal_masked_embeddings, **close)
    torch.testing.assert_close(match.run(pairs), theirs.itm_logits, **close)
    there = (ids == flava[1].mask_token_id).nonzero()[:, 1]
    hidden = theirs.mmm_text_logits[torch.arange(2), there]
    torch.testing.assert_close(words.run(pairs), hidden, **close)
    alone = torch.cat([words.run(one) for one in pairs])
    torch.testing.assert_close(alone, hidden, **close)  # padding changes nothing
    assert words.run(pairs).shape == (2, 32)


def test_in_single_precision_it_is_the_class_to_rounding():
    model, _, tokenizer = hf_flava(heads=True)
    hooked = mm.from_model(model, None, tokenizer, multimodal="match")
    read = tokenizer([TEXT], return_tensors="pt")
    pixels = hooked.vision.preprocess(PHOTO)[None]
    with torch.no_grad():
        theirs = model(pixel_values=pixels, **read, return_loss=False).itm_logits
    torch.testing.assert_close(hooked.run(PAIR), theirs, atol=1e-5, rtol=0)
    assert hooked.run(PAIR).dtype == torch.float32
    half = mm.from_model(model, None, tokenizer, multimodal="match", dtype="bfloat16")
    assert half.run(PAIR).dtype == torch.bfloat16


def test_every_hook_point_fires_has_a_gradient_and_acts(match, words):
    table = mm.audit(words)
    assert {name.partition(".")[0] for name in table.name} == set(TOWERS)
    assert table[["fires", "differentiable", "acts"]].all(axis=None)
    sites = match.sites.set_index("site")
    assert sites.loc["multimodal.neurons", "layers"] == (0, 1)
    assert sites.loc["multimodal.pattern", "axes"] == ("head", "query", "key")


def test_positions_are_its_own_cls_and_those_of_the_picture_and_the_text(match):
    scores = mm.attribute(match, PAIR, of="match", point="post")
    labels = scores.of("pos")
    assert labels[:3] == (Marker("CLS_M", 0), Marker("CLS", 0), Patch(0, 0))
    assert labels[17] == Patch(3, 3)
    assert labels[18:20] == (Token("[CLS]", 0), Token("a", 1))
    assert scores.axes == ("layer", "pos", "unit") and scores.values.shape == (2, 25, 40)
    assert scores.about["tower"] == "multimodal"
    pair = [Prompt(PHOTO, TEXT), Prompt(OTHER, "two cats")]
    rows = match.picture_rows(pair, SITES["multimodal.resid_post"])
    assert [type(one) for one in rows[1][-2:]] == [Padding] * 2
    one = mm.activations(match, pair[1], "multimodal.resid_post", layer=1)
    assert [str(at) for at in one.of("pos")[-4:]] == ["[CLS]", "two", "cats", "[SEP]"]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("answer", ["match", "words"])
def test_a_score_is_what_scaling_a_unit_takes_to_first_order(match, words, tower, answer):
    model, prompt, of = (match, PAIR, "match") if answer == "match" else (words, HIDDEN, "dog")
    site, index = f"{tower}.neurons", model.answer_index(of)
    scores = mm.attribute(model, prompt, of=of, site=site, point="post").sum("pos")
    plain, step = model.run(prompt)[0, index], 1e-4
    for layer in range(len(scores.of("layer"))):
        for unit in scores.sel(layer=layer).values.abs().topk(3).indices.tolist():
            score = float(scores.sel(layer=layer).values[unit])
            less = model.edit(Edit(site, lambda x: (1 - step) * x, Neuron(layer, unit, tower)))
            change = float(plain - less.run(prompt)[0, index]) / step
            assert change == pytest.approx(score, rel=2e-3, abs=1e-7)


def test_a_list_of_words_has_an_axis_of_tokens_and_probabilities_sum_to_one(words):
    found = mm.attribute(words, HIDDEN, of=["dog", "cat"], point="post")
    assert found.axes[0] == "token" and found.of("token") == ("dog", "cat")
    one = mm.attribute(words, HIDDEN, of="cat", point="post")
    torch.testing.assert_close(found.sel(token="cat").values, one.values)
    number = mm.attribute(words, HIDDEN, of=words.answer_index("cat"), point="post")
    torch.testing.assert_close(number.values, one.values)
    chances = words.run(HIDDEN).softmax(-1)[0]
    read = metrics.probability(words, "cat")
    assert float(read(words.run(HIDDEN)[0])) == pytest.approx(
        float(chances[words.answer_index("cat")])
    )


def test_a_unit_of_the_multimodal_encoder_is_explained_by_units_before_it(match):
    unit = Neuron(1, 5, "multimodal")
    scores = mm.attribute(match, PAIR, of=unit, layer=0)
    assert scores.about["of"] == "multimodal.L1.5"
    seen = mm.attribute(match, PAIR, of=unit, site="vision.neurons", point="post")
    assert seen.values.abs().sum() > 0
    own = mm.activations(match, PAIR, unit)
    assert own.axes == ("pos",) and len(own.of("pos")) == 25


def test_everything_patched_from_another_pair_gives_its_answer(match, words):
    there = Prompt(OTHER, "a drawing of two cats")
    for layer in (0, 1):
        read = mm.activations(match, there, "multimodal.resid_post", layer=layer)
        patched = match.edit(
            Edit("multimodal.resid_post", read.values, layer=layer, pos=slice(None))
        )
        torch.testing.assert_close(patched.run(PAIR), match.run(there))
    pair = patching.Pair(Prompt(OTHER, MASKED), HIDDEN)
    metric = metrics.logit(words, "dog")
    whole = patching.patch(words, pair, metric, "multimodal.embed", by=())
    assert float(whole.values) == pytest.approx(float(words.run(pair.clean)[0, 6]))
    assert words.answer_index("dog") == 6
    each = patching.patch(words, pair, metric)
    assert each.axes == ("layer", "pos") and each.values.shape == (2, 25)
    by_head = patching.patch(words, pair, metric, "multimodal.z")
    assert by_head.axes == ("layer", "head")
    for site in ("vision.resid_post", "pixels"):
        seen = patching.patch(words, pair, metric, site, by=())
        assert float(seen.values if seen.axes == () else seen.values.flatten()[-1]) == (
            pytest.approx(float(words.run(pair.clean)[0, 6]))
        )
    linear = patching.attribution_patching(words, pair, metric, "multimodal.embed")
    assert float(linear.values.abs().sum()) > 0


def test_an_edit_at_a_patch_a_word_and_cls_reads_there_and_nowhere_else(match):
    for where in (Patch(1, 2), "photo", Marker("CLS_M", 0)):
        edited = match.edit(Edit("multimodal.resid_pre", 0.0, layer=1, pos=where))
        found = mm.activations(edited, PAIR, "multimodal.resid_pre", layer=1)
        before = mm.activations(match, PAIR, "multimodal.resid_pre", layer=1)
        same = (found.values == before.values).all(-1)
        assert (found.sel(pos=where).values == 0).all() and int((~same).sum()) == 1
        assert not torch.equal(edited.run(PAIR), match.run(PAIR))


def test_ablating_units_in_one_batch_is_ablating_each_alone(match):
    units = [Neuron(0, 3, "multimodal"), Neuron(1, 7, "multimodal")]
    metric = metrics.logit(match, "match")
    found = patching.ablate(match, PAIR, metric, "multimodal.neurons", units=units)
    for unit, value in zip(units, found.values.tolist(), strict=True):
        alone = match.edit(Edit("multimodal.neurons", 0.0, unit)).run(PAIR)[0, 1]
        assert value == pytest.approx(float(alone))
    assert found.about["clean"] == pytest.approx(float(match.run(PAIR)[0, 1]))


def test_a_painted_square_lands_in_its_patch_and_the_gradient_reaches_the_pixels(match):
    grey = Image.new("RGB", (32, 32), (120, 120, 120))
    for where in (Patch(0, 0), Patch(2, 1), Patch(3, 3)):
        painted = grey.copy()
        painted.paste((255, 0, 0), (8 * where.col, 8 * where.row, 8 * where.col + 8,
                                    8 * where.row + 8))  # fmt: skip
        one, two = (
            mm.activations(match, picture, "vision.resid_pre", layer=0)
            for picture in (grey, painted)
        )
        moved = (one.values - two.values).abs().sum(-1)
        assert [label for label, by in zip(one.of("pos"), moved, strict=True) if by > 0] == [where]
        both = [mm.activations(match, Prompt(p, TEXT), "multimodal.embed") for p in (grey, painted)]
        change = (both[0].values - both[1].values).abs().sum(-1)
        patches = [at for at, one in enumerate(both[0].of("pos")) if isinstance(one, Patch)]
        best = max(patches, key=lambda at: float(change[at]))
        assert both[0].of("pos")[best] == where
    scores = mm.attribute_picture(match, PAIR, of="match", attribution="integrated_gradients")
    assert scores.of("pos")[0] == Patch(0, 0) and scores.values.abs().sum() > 0
    assert scores.about["sum"] == pytest.approx(scores.about["change"], rel=0.02)
    seen = relevance.occlusion(match, PAIR, of="match")
    again = mm.attribute_picture(match, PAIR, of="match", attribution="occlusion")
    torch.testing.assert_close(seen.values, again.values)


def test_relevance_by_attention_starts_at_cls_m_and_reaches_patches_and_tokens(match, words):
    for model, prompt, of in ((match, PAIR, "match"), (words, HIDDEN, "dog")):
        found = relevance.chefer(model, prompt, of)
        assert len(found.of("pos")) == 25 and bool((found.values >= 0).all())
        flow = relevance.rollout(model, prompt)
        assert float(flow.values.sum()) == pytest.approx(1.0)


def test_without_heads_the_states_are_read_and_what_needs_a_head_is_refused(states):
    model, _, tokenizer = hf_flava()
    bare = mm.from_model(model, None, tokenizer, multimodal="states")
    assert bare.run(PAIR).shape == (1, 25, 24)
    by = mm.attribute(bare, PAIR, target=lambda rows: rows[0].sum(), point="post")
    assert by.values.abs().sum() > 0
    for answers, head in (("match", "itm_head"), ("words", "mmm_text_head")):
        with pytest.raises(CapabilityError, match=f"FlavaModel has no {head} to answer with"):
            mm.from_model(model, None, tokenizer, multimodal=answers)
    with pytest.raises(CapabilityError, match="answers with states, so no word"):
        mm.attribute(states, PAIR, of="match")
    with pytest.raises(CapabilityError, match="answers with states, so no word"):
        mm.attribute(states, PAIR)
    with pytest.raises(CapabilityError, match="predicts neither tokens nor classes"):
        metrics.logit(states, "match")


def test_what_cannot_be_asked_is_refused_in_a_sentence(match, words, flava):
    assert match.can("pairs") and not match.can("similarity") and not match.can("generate")
    with pytest.raises(PromptError, match="reads pairs of one picture and one text"):
        match.run(PHOTO)
    with pytest.raises(PromptError, match="reads pairs of one picture and one text"):
        match.run([PHOTO, TEXT])
    with pytest.raises(PromptError, match="one mask in each text, and here are 0"):
        words.run(PAIR)
    with pytest.raises(TargetError, match="no single piece of text"):
        mm.attribute(words, HIDDEN, of="red banana")
    with pytest.raises(TargetError, match="No class is called 'dog'"):
        mm.attribute(match, PAIR, of="dog")
    with pytest.raises(TargetError, match="no word to explain: write of='dog'"):
        mm.attribute(words, HIDDEN)
    with pytest.raises(TargetError, match="no answer to explain: write of='match'"):
        mm.attribute(match, PAIR)
    with pytest.raises(TargetError, match="99 is no word of 'flava': give a piece of text, or an"):
        mm.attribute(words, HIDDEN, of=99)
    with pytest.raises(CapabilityError, match="has an unembedding"):
        mm.logit_lens(words, HIDDEN)
    with pytest.raises(CapabilityError, match="compares pictures with texts"):
        mm.zero_shot(match, PHOTO, [TEXT])
    with pytest.raises(PromptError, match="pairs of a picture and a text"):
        mm.activations(match, PHOTO, "multimodal.neurons", layer=0)
    with pytest.raises(ArgumentError, match="generates no words"):
        mm.attribute(match, PAIR, of="match", after="")
    with pytest.raises(CapabilityError, match="save_pretrained of transformers writes it"):
        match.save("somewhere")
    with pytest.raises(ArgumentError, match="'match'"):
        mm.from_model(flava[0], None, flava[1], multimodal="itm")
    clip, _, tokenizer = DUALS["transformers CLIP"]()
    with pytest.raises(CapabilityError, match="CLIPModel has no encoder that reads a picture and"):
        mm.from_model(clip, None, tokenizer, multimodal="match")
    for model, how in ((clip, {}), (flava[0], {"multimodal": "match"})):
        with pytest.raises(ArgumentError, match="reads words alone: write from_model"):
            mm.from_model(model, tokenizer, **how)
    unmasked = copy.deepcopy(flava[1])
    unmasked.mask_token = None
    with pytest.raises(CapabilityError, match="its tokenizer has none"):
        mm.from_model(flava[0], None, unmasked, multimodal="words")


def test_words_that_are_no_one_text_are_refused_and_not_joined(match):
    clip = mm.from_model(*DUALS["transformers CLIP"]())
    for model in (match, clip):
        for turns in (([PHOTO, TEXT], "yes"), ([PHOTO, TEXT], "yes", "why")):
            with pytest.raises(PromptError, match="neither turns nor a system text"):
                model.run(Prompt.chat(*turns))
        with pytest.raises(PromptError, match="neither turns nor a system text"):
            model.run(Prompt.chat([PHOTO, TEXT], system="be brief"))
        with pytest.raises(PromptError, match="words on both sides"):
            model.run(Prompt("a photo", PHOTO, "of a dog"))
        torch.testing.assert_close(model.run(Prompt(TEXT, PHOTO)), model.run(PAIR))


def test_a_picture_or_a_text_alone_is_read_by_its_own_encoder(match):
    units = mm.activations(match, PHOTO, "vision.neurons", layer=0)
    both = mm.activations(match, PAIR, "vision.neurons", layer=0)
    torch.testing.assert_close(units.values, both.values)
    one = mm.activations(match, TEXT, "text.neurons", layer=0)
    two = mm.activations(match, PAIR, "text.neurons", layer=0)
    torch.testing.assert_close(one.values, two.values)


def test_copies_pickles_and_a_folder_of_the_class_give_the_same(flava, match, tmp_path):
    for other in (copy.deepcopy(match), pickle.loads(pickle.dumps(match))):
        torch.testing.assert_close(other.run(PAIR), match.run(PAIR))
        assert list(other.hook_dict) == list(match.hook_dict)
    model, tokenizer = flava
    model.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    loaded = mm.load(tmp_path / "whole", multimodal="match", dtype="float64")
    torch.testing.assert_close(loaded.run(PAIR), match.run(PAIR), atol=1e-5, rtol=0)
    assert loaded.provenance["answers"] == "match"
    assert mm.load(tmp_path / "whole").can("similarity")
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.filterwarnings("ignore")
def test_every_verb_answers_or_refuses_in_one_sentence(match, monkeypatch):
    refused = refusals(match, monkeypatch, "pairs")
    lacking = {name for name, verb in verbs().items() if not all(map(match.can, verb.needs))}
    assert lacking <= set(refused)
    assert set(refused) - lacking == {
        "mmlens.blank_check", "mmlens.look", "mmlens.stroop", "mmlens.top_images",
        "mmlens.typographic_attack",
    }  # fmt: skip
    for verb in ("look", "stroop"):
        assert "neither compares pictures with texts nor has classes" in refused[f"mmlens.{verb}"]
    assert "No picture reaches units of the tower 'multimodal'" in refused["mmlens.top_images"]
